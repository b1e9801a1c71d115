"""Are our indexes, and the templates for those to come, as we make them? Judging is pure; `examine_store_indexes` and `examine_trail_index` ask."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from collector.errors import NotFound, StateUnknown
from collector.store.opensearch.connection import Refusal
from collector.store.opensearch.layout import Layout
from correlator.index.opensearch.generations import Generations, index_body
from correlator.index.settings import IndexSettings
from deploy.examining import Chart
from deploy.examining.nodes import makes_by_itself
from deploy.examining.questions import Questions, flat
from deploy.wording import count

__all__ = ["Problem", "differences", "examine_store_indexes", "examine_trail_index", "problems_of", "tell_problems"]

_NAMES_SHOWN = 4
_PRIORITY = 500
"""Of our templates (`Layout.templates`)."""


class _IndexSettings(msgspec.Struct):
    settings: dict[str, str]


class _IndexMappings(msgspec.Struct):
    mappings: dict[str, Any] = {}


class _Template(msgspec.Struct):
    index_patterns: list[str] = []
    priority: int = 0
    template: dict[str, Any] = {}


class _NamedTemplate(msgspec.Struct):
    name: str
    index_template: _Template


class _Templates(msgspec.Struct):
    index_templates: list[_NamedTemplate]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """What is wrong with an index.

    Attributes:
        outcome: how bad it is.
        what: in words, the same for every index that has it.
        suffix, body: of the request that mends it: ``_settings`` or ``_mapping``, and its body; empty where none does.
        help: what helps beside that.
    """

    outcome: Literal["warning", "failed"]
    what: str
    suffix: str = ""
    body: Any = None
    help: str = ""


def differences(found: Mapping[str, str], wanted: Mapping[str, str]) -> list[str]:
    """How `found` differs from `wanted` in what is wanted, in words."""
    return [
        f"{name} is {found[name]}, not {value}" if name in found else f"{name} is missing"
        for name, value in wanted.items()
        if found.get(name) != value
    ]


def problems_of(
    settings: Mapping[str, str], mappings: Mapping[str, Any], wanted: Mapping[str, Any], *, open_for_writing: bool
) -> list[Problem]:
    """What is wrong with one index.

    Args:
        settings: as the server tells them, with dotted names.
        mappings: as the server tells them.
        wanted: the body that we make it with.
        open_for_writing: whether anything is still to be written there; a month that is over may be blocked.
    """
    found = list(_blocks(settings, open_for_writing=open_for_writing))
    ours = flat(wanted["settings"])
    if ours.get("index.append_only.enabled") == "true" and settings.get("index.append_only.enabled") != "true":
        found.append(
            Problem(
                outcome="failed",
                what="not append-only: what is stored there can be changed, and the store is not opened",
                help="an index that is empty can be dropped, and is made anew; for another one, look at who made it",
            )
        )
    for name in ("index.translog.durability", "index.default_pipeline", "index.final_pipeline"):
        default = {"index.translog.durability": "request"}.get(name, "_none")
        if settings.get(name, default) != ours[name]:
            what = f"{name} is {settings.get(name)}, not {ours[name]}"
            found.append(Problem(outcome="failed", what=what, suffix="_settings", body={name: ours[name]}))
    if settings.get("index.replication.type", "DOCUMENT") != ours["index.replication.type"]:
        what = f"index.replication.type is {settings['index.replication.type']}: copies show what was written later than the primary"
        found.append(
            Problem(outcome="warning", what=what, help="it cannot be changed; the next month's index is made right")
        )
    replicas = "index.number_of_replicas"
    expands = settings.get("index.auto_expand_replicas", "false") != "false"
    if not expands and int(settings.get(replicas, "1")) < int(ours[replicas]):
        what = f"{replicas} is {settings.get(replicas)}, and the configuration says {ours[replicas]}"
        found.append(Problem(outcome="warning", what=what, suffix="_settings", body={replicas: int(ours[replicas])}))
    found += _mapping_problems(mappings, wanted["mappings"])
    return found


def _blocks(settings: Mapping[str, str], *, open_for_writing: bool) -> Iterable[Problem]:
    if settings.get("index.verified_before_close") == "true":
        yield Problem(outcome="failed", what="closed: it can neither be read nor written", suffix="_open", body={})
    for name in ("read_only_allow_delete", "read_only", "write", "read", "metadata"):
        if settings.get(f"index.blocks.{name}") != "true":
            continue
        if not open_for_writing and name in ("read_only", "write", "read_only_allow_delete"):
            continue
        yield Problem(
            outcome="failed",
            what=f"index.blocks.{name}: nothing can be {'read' if name in ('read', 'metadata') else 'written'}",
            suffix="_settings",
            body={f"index.blocks.{name}": None},
            help="a disk beyond its flood stage sets it: make room, and it goes by itself"
            if name == "read_only_allow_delete"
            else "",
        )


def _mapping_problems(mappings: Mapping[str, Any], wanted: Mapping[str, Any]) -> Iterable[Problem]:
    if flat({"dynamic": mappings.get("dynamic", True)})["dynamic"] != "false":
        what = "takes up new fields by itself: one odd event may make the next ones unstorable"
        yield Problem(outcome="failed", what=what, suffix="_mapping", body={"dynamic": False})
    fields, ours = mappings.get("properties", {}), wanted["properties"]
    missing = {name: dict(field) for name, field in ours.items() if name not in fields}
    if missing:
        what = f"does not know the {count(len(missing), 'field')} {_few(sorted(missing))}"
        yield Problem(outcome="warning", what=what, suffix="_mapping", body={"properties": missing})
    wrong = [name for name, field in ours.items() if name in fields and flat(fields[name]) != flat(dict(field))]
    if wrong:
        yield Problem(
            outcome="failed",
            what=f"has {_few(sorted(wrong))} mapped otherwise than we do",
            help="it cannot be changed; who made this index? the next month's is made right where the templates are",
        )
    more = sorted(fields.keys() - ours.keys())
    if more:
        what = f"has {count(len(more), 'field')} that {'is' if len(more) == 1 else 'are'} not ours: {_few(more)}"
        yield Problem(outcome="warning", what=what, help="somebody added to its mapping; it cannot be taken back")


def _few(names: Sequence[str]) -> str:
    return f"{', '.join(names[:_NAMES_SHOWN])}{f' and {len(names) - _NAMES_SHOWN} more' if len(names) > _NAMES_SHOWN else ''}"


def tell_problems(chart: Chart, questions: Questions, found: Mapping[str, Sequence[Problem]], *, what: str) -> None:
    """One line for each problem, with the indexes that have it; one for all when there is none. `what`: ``index``."""
    by_problem: dict[str, tuple[Problem, list[str]]] = {}
    for name, problems in sorted(found.items()):
        for problem in problems:
            by_problem.setdefault(problem.what, (problem, []))[1].append(name)
    for problem, names in by_problem.values():
        mend = [problem.help] if problem.help else []
        if problem.suffix:
            method = "POST" if problem.suffix == "_open" else "PUT"
            mend.append(questions.curl(method, f"/{','.join(names)}/{problem.suffix}", problem.body))
        tell = chart.fail if problem.outcome == "failed" else chart.warn
        tell(what, f"{_few(names)}: {problem.what}", *mend)
    if found and not by_problem:
        chart.ok(
            what, f"{_few(sorted(found))}, as we make them" if len(found) > 1 else f"{next(iter(found))}, as we make it"
        )


def examine_store_indexes(chart: Chart, questions: Questions, *, cluster: Mapping[str, str] | None, month: str) -> None:
    """Templates and indexes of the event store.

    Args:
        chart: gets the checks.
        questions: to its cluster.
        cluster: the cluster's settings, flat; None: they are not told.
        month: the month, ``2026.01``, that batches are written to now.
    """
    settings = questions.settings
    layout = Layout(prefix=settings.prefix, shards=settings.shards, replicas=settings.replicas)
    with questions.about(chart, "templates"):
        try:
            named = questions.get(_Templates, "/_index_template").index_templates
        except Refusal as refusal:
            if refusal.status != 404:
                raise
            named = []
        _templates(chart, questions, layout, {one.name: one.index_template for one in named}, cluster)
    prefix = layout.prefix
    path = f"/{','.join((*layout.fixed(), f'{prefix}-events-*', f'{prefix}-facts-*'))}"
    with questions.about(chart, "indexes"):
        told = questions.get(
            dict[str, _IndexSettings],
            f"{path}/_settings",
            flat_settings="true",
            ignore_unavailable="true",
            expand_wildcards="all",
        )
        mapped = questions.get(
            dict[str, _IndexMappings], f"{path}/_mapping", ignore_unavailable="true", expand_wildcards="all"
        )
        ours = [name for name in told if name in layout.fixed() or _month_of(layout, name)]
        if not ours:
            chart.ok("indexes", "none yet: the first process that writes makes them")
            return
        gone = [name for name in layout.fixed() if name not in told]
        if gone:
            chart.fail(
                "indexes",
                f"{', '.join(gone)} {'is' if len(gone) == 1 else 'are'} gone, and others are there",
                "restore a snapshot, and run `tally check`",
            )
        found = {
            name: problems_of(
                told[name].settings,
                mapped.get(name, _IndexMappings()).mappings,
                layout.body(name),
                open_for_writing=_month_of(layout, name) in ("", month),
            )
            for name in ours
        }
        tell_problems(chart, questions, found, what="indexes")


def _month_of(layout: Layout, name: str) -> str:
    match = re.fullmatch(rf"{re.escape(layout.prefix)}-(?:events|facts)-(\d{{4}}\.\d\d)", name, re.ASCII)
    return match[1] if match else ""


def _templates(
    chart: Chart,
    questions: Questions,
    layout: Layout,
    there: Mapping[str, _Template],
    cluster: Mapping[str, str] | None,
) -> None:
    wanted = layout.templates()
    samples = {name: body["index_patterns"][0].replace("*", "2000.01") for name, body in wanted.items()}
    auto = (cluster or {}).get("action.auto_create_index", "true")
    missing = [name for name in wanted if name not in there]
    risky = [name for name in missing if makes_by_itself(auto, samples[name])]
    fine = True
    if risky:
        fine = False
        chart.fail(
            "templates",
            f"missing: {_few(risky)}. An index that comes by itself (action.auto_create_index is {auto}), after one was dropped, "
            "can be changed by whoever may write there",
            *_installing(questions),
        )
    for name, body in wanted.items():
        if name not in there:
            continue
        template = there[name]
        wrong = differences(
            flat(template.template), flat({key: _plain(value) for key, value in body["template"].items()})
        )
        if template.index_patterns != body["index_patterns"]:
            wrong.append(f"index_patterns is {','.join(template.index_patterns)}")
        if wrong:
            fine = False
            only_sizes = all(one.startswith("settings.index.number_of_") for one in wrong)
            tell = chart.warn if only_sizes else chart.fail
            tell("templates", f"{name} is not ours: {_few(wrong)}", *_installing(questions))
    for name, template in sorted(there.items()):
        if name in wanted or template.priority < _PRIORITY:
            continue
        hit = [one for one in samples.values() if any(fnmatchcase(one, pattern) for pattern in template.index_patterns)]
        if hit:
            fine = False
            chart.warn(
                "templates",
                f"{name} (priority {template.priority}) comes before ours for {_few([one.replace('2000.01', '*') for one in hit])}",
                f"give it a priority below {_PRIORITY}, or patterns without {layout.prefix}-*",
            )
    if fine:
        chart.ok(
            "templates", "ours are installed" if not missing else f"not needed: action.auto_create_index is {auto}"
        )


def _plain(value: Any) -> Any:
    """Our mappings hold read-only views; dotted names of settings become the server's nested ones by being flat as well."""
    return {key: _plain(below) for key, below in value.items()} if isinstance(value, Mapping) else value


def _installing(questions: Questions) -> tuple[str, ...]:
    put = questions.curl("PUT", "/_index_template/NAME").replace("/_index_template/NAME", '/_index_template/$name"')
    before, _, url = put.rpartition(" ")
    command = before.replace("-u ADMIN", '-u "ADMIN:$PASSWORD"')
    return (
        "tally config --templates | jq -c 'to_entries[]' | while read -r t; do name=$(jq -r .key <<< \"$t\");",
        f'  jq -c .value <<< "$t" | {command} -H \'content-type: application/json\' -d @- "{url}; done',
    )


def examine_trail_index(chart: Chart, questions: Questions) -> None:
    """The trail index on OpenSearch: its alias, format, settings and mapping."""
    settings = questions.settings
    assert isinstance(settings, IndexSettings)
    alias = f"{settings.prefix}-trails"
    with questions.about(chart, "index"):
        try:
            questions.either(lambda connection: Generations(connection, settings).check())
        except NotFound:
            chart.ok("index", f"{alias} is not there yet: the correlator makes it")
            return
        except StateUnknown as error:
            if isinstance(error, Refusal):
                raise
            chart.fail("index", str(error), "stop the correlator, and: tally reindex")
            return
        told = questions.get(dict[str, _IndexSettings], f"/{alias}/_settings", flat_settings="true")
        mapped = questions.get(dict[str, _IndexMappings], f"/{alias}/_mapping")
        found = {
            name: problems_of(one.settings, mapped[name].mappings, index_body(settings), open_for_writing=True)
            for name, one in told.items()
        }
        tell_problems(chart, questions, found, what="index")
