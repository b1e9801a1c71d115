"""Which trails make up the story of one: itself, and the traces that belong to it. Pure, over whatever tells links.

The story of a transaction is its trail and the trace trails linked to it; that of a key the same. It is never transitive through another
transaction: a trace that several transactions share belongs to each of their stories, but they do not thereby become one.
Those are shown as related, with the trail that relates them. A hub (a key with more links than `hub_links`) is shown and not
followed, wherever it turns up.
"""

from collections.abc import Callable
from dataclasses import dataclass

from correlator.index import TrailSummary
from correlator.trail import kind_of

__all__ = ["MAX_RELATED", "MAX_STORY_TRACES", "Related", "StoryTrails", "story"]

MAX_STORY_TRACES = 200
"""Traces of one story at most; the rest is counted, not read."""

MAX_RELATED = 200
"""Related trails, and hubs, that are told of one story at most; the rest is counted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Related:
    """Another trail that has to do with this one, and the trail through which it does (empty: linked directly)."""

    trail: str
    through: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoryTrails:
    """The trails of a story.

    Attributes:
        main: the trail asked for.
        traces: the trace trails linked to it, sorted.
        traces_left_out: how many more there are, beyond `MAX_STORY_TRACES` or because `main` is a hub.
        related: other transactions and keys, linked directly or through one of the traces; sorted, each once.
        related_left_out: how many more there may be, which were not looked at.
        hubs: of those, keys that are hubs: they relate so many that they say nothing about this one.
    """

    main: str
    traces: tuple[str, ...] = ()
    traces_left_out: int = 0
    related: tuple[Related, ...] = ()
    related_left_out: int = 0
    hubs: tuple[str, ...] = ()


def story(
    trail: str, read: Callable[[str], TrailSummary], is_hub: Callable[[str], bool], *, most_related: int = MAX_RELATED
) -> StoryTrails:
    """The trails of the story of `trail`.

    Args:
        trail: its id.
        read: gives a trail's summary (`TrailIndex.trail`); called for the trail and its traces.
        is_hub: whether a key's trail is a hub (`TrailIndex.is_hub`); called for each key that is told.
        most_related: related trails, and hubs, that are told at most.

    Raises:
        NotFound: from these, when there is no such trail.
    """
    main = read(trail)
    linked_traces = sorted(link for link in main.links if kind_of(link) == "trace")
    follow = kind_of(trail) != "trace" and not main.hub
    traces = linked_traces[:MAX_STORY_TRACES] if follow else []
    through: dict[str, str] = {link: "" for link in main.links if kind_of(link) != "trace"}
    for trace in traces:
        for link in read(trace).links:
            if link != trail and kind_of(link) != "trace":
                through.setdefault(link, trace)
    related: list[Related] = []
    hubs: list[str] = []
    for link in sorted(through):
        if len(related) == most_related or len(hubs) == most_related:
            break
        if kind_of(link) == "key" and is_hub(link):
            hubs.append(link)
        else:
            related.append(Related(trail=link, through=through[link]))
    return StoryTrails(
        main=trail,
        traces=tuple(traces),
        traces_left_out=len(linked_traces) - len(traces),
        related=tuple(related),
        related_left_out=len(through) - len(related) - len(hubs) + main.links_left_out,
        hubs=tuple(hubs),
    )
