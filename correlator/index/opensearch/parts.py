"""What is to be applied, as far as its trails lack it. Pure."""

from dataclasses import dataclass, replace

from correlator.index import IndexedLeaf
from correlator.index.leaves import EventRun

__all__ = ["Part", "after", "part_of"]


@dataclass(frozen=True, slots=True)
class Part:
    """A leaf, or neighbouring events of one trail, as they were given."""

    given: IndexedLeaf | EventRun
    trail: str
    position: int
    count: int


def part_of(given: IndexedLeaf | EventRun) -> Part:
    """The part that these are."""
    if isinstance(given, EventRun):
        return Part(given, given.trail, given.position, len(given.facts))
    return Part(given, given.entry.trail, given.entry.position, 1)


def after(part: Part, leaf: int) -> Part:
    """Of these leaves those after `leaf`."""
    given = part.given
    passed = min(max(leaf + 1 - given.leaf, 0), part.count)
    if passed == 0 or not isinstance(given, EventRun):
        return replace(part, count=part.count - passed)
    return part_of(
        EventRun(
            leaf=given.leaf + passed,
            position=given.position + passed,
            trail=given.trail,
            facts=given.facts[passed:],
        )
    )
