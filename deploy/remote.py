"""A ledger behind its API, for the command line: finds what a person means, and tells its story as `deploy.reading` does from files.

What is told comes from bundles, and each is verified here, with the key that the reader has from elsewhere: the API is not trusted. Which trails a story has
is its word only as far as entries of the trail link to them. Its word alone are what lies beside the bundles: which trails a search finds and are related, what the
streams miss, and who read the trail before.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import msgspec

from audit_api.export.walk import told_query
from collector.errors import Malformed
from correlator.bundle import Contents, TrailPart
from correlator.checkpoint import Checkpoint
from correlator.entry import decode_entry
from correlator.errors import NotFound, VerificationError
from correlator.flow import Flow
from correlator.index import IndexedLeaf, TrailQuery, TrailSummary
from correlator.index.condition import HasText
from correlator.index.rows import KEYS_A_PAGE, Row, absorb
from correlator.index.vocabulary import STATUSES
from correlator.index.words import TextSearch
from correlator.note import Verifier
from correlator.story import StoryTrails
from correlator.trail import RETIREMENTS, is_trail, kind_of, meant_trails, stream_trail
from correlator.unbundle import parse_members, unpack_bundle
from correlator.verify import verify_bundle
from deploy.apiclient import Api, ApiProblem, trail_path
from deploy.gaps import open_gaps
from deploy.narrate import narrate
from deploy.reading import joined
from deploy.session import Failure
from deploy.story import Proof, ProvedTree, Story

__all__ = ["RemoteLedger", "no_record"]

MAX_GAPS = 20
_PAGE = 200


def no_record(*, action: str, trail: str, head: int, refused: str = "") -> None:
    """Nothing: the API has put it on record."""


class _Page(msgspec.Struct):
    trails: list[dict[str, Any]]
    next: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class RemoteLedger:
    """A ledger that an API serves.

    Attributes:
        api: where.
        key: the ledger's public key, from elsewhere; None: there is none at hand, and nothing is called verified.
        flows: those that are declared, as far as they are known here.
        key_names: for a message.
    """

    api: Api
    key: Verifier | None = None
    flows: tuple[Flow, ...] = ()
    key_names: tuple[str, ...] = ("those that the ledger declares",)

    def public_key(self) -> Verifier:
        """The key from elsewhere, or, where there is none, the one that the API says the ledger has."""
        if self.key is not None:
            return self.key
        try:
            return Verifier.parse(str(self.api.document("/v1/checkpoint")["key"]))
        except (KeyError, TypeError, VerificationError) as error:
            raise Failure(f"{self.api.url}: it does not say which key the ledger has") from error

    def search(self, query: TrailQuery, *, limit: int = 50) -> tuple[list[TrailSummary], bool]:
        """The newest trails that match, at most `limit`, and whether there are more."""
        return self.search_for({name: str(value) for name, value in told_query(query).items()}, limit=limit)

    def saved(self, name: str) -> dict[str, str]:
        """The conditions of a search that is saved in the API: the reader's own of this name, else the one that is shared with them.

        Raises:
            Failure: there is none, or several are shared under this name.
        """
        told = _read(self.api, lambda told: _searches(told, name), self.api.document("/v1/searches"))
        found = [one for one in told if one["own"]] or told
        if not found:
            raise Failure(f"{self.api.url}: no search {name!r} is saved there that you may see", exit_code=2)
        if len(found) > 1:
            names = ", ".join(sorted(str(one["principal"]) for one in found))
            raise Failure(f"{self.api.url}: several share a search {name!r}: {names}", exit_code=2)
        return {str(key): str(value) for key, value in found[0]["conditions"].items()}

    def search_for(self, asked: Mapping[str, str], *, limit: int = 50) -> tuple[list[TrailSummary], bool]:
        """As `search`, of conditions as the API's parameters have them."""
        found: list[TrailSummary] = []
        cursor = ""
        while len(found) < limit:
            page = self.api.document(
                "/v1/trails", {**asked, "cursor": cursor, "limit": str(min(_PAGE, limit - len(found)))}
            )
            page = _read(self.api, lambda told: msgspec.convert(told, _Page), page)
            found += [_read(self.api, _summary, one) for one in page.trails]
            cursor = page.next or ""
            if not cursor:
                break
        return found, bool(cursor)

    def find(self, text: str, *, tenant: str = "") -> list[TrailSummary]:
        """The trails that a person may mean: a whole trail id; else a transaction ID, a trace id, or a business key's value."""
        for trail in meant_trails(text, tenant):
            try:
                return [_read(self.api, _summary, self._trail(trail, limit=1)["summary"])]
            except NotFound:
                continue
        try:
            words = TextSearch.parse(" ".join(part.rstrip("*") for part in text.split()))
        except ValueError:
            return []
        found, _ = self.search(TrailQuery(tenant=tenant, condition=HasText(text=words)))
        # of a trail with very many keys not all are told
        carry = [one for one in found if len(one.keys) >= KEYS_A_PAGE or any(value == text for _, value in one.keys)]
        # a key's own trail may hold nothing but links to the transactions that carry the key: those are what is meant
        return [one for one in carry if one.services] or carry

    def _trail(self, trail: str, *, limit: int) -> dict[str, Any]:
        """What the API tells of a trail; raises `NotFound`, and `Failure` when it tells of another."""
        try:
            told = self.api.document(trail_path("/v1/trails", trail), {"limit": str(limit), "events": "false"})
        except ApiProblem as problem:
            if problem.kind in ("not-found", "bad-parameter"):
                raise NotFound(str(problem)) from problem
            raise
        if _read(self.api, _named, told) != trail:
            raise Failure(f"{self.api.url}: asked for {trail}, it tells of another trail")
        assert isinstance(told, dict)
        return told

    # The story --------------------------------------------------------------------------------------------------------

    def story(self, summary: TrailSummary) -> tuple[Story, int]:
        """As `deploy.reading.Ledger.story`: of bundles that were verified here, each of its own shard's log.

        The status is that of the entries in the bundle, not the API's word.

        Raises:
            Failure: the API does not give it out, or what it gives out is no bundle, or is of another trail, or has trails in it that are no part of the story.
        """
        told = self._trail(summary.trail, limit=1)
        trails = _read(self.api, _trails, told)
        last_leaf = _read(self.api, _summary, told["summary"]).last_leaf
        if trails.traces and trails.traces_left_out:
            # the API refuses a bundle with some of the traces, and each by itself would be an export for each
            left_out = len(trails.traces) + trails.traces_left_out
            trails = replace(trails, traces=(), traces_left_out=left_out)
        contents, proof = self._verified(
            summary.trail, linked=bool(trails.traces or not trails.traces_left_out), last_leaf=last_leaf
        )
        linked = _linked_traces(contents.trails[0])
        for one in contents.trails[1:]:
            if one.trail not in linked and one.trail != RETIREMENTS:
                raise Failure(f"{self.api.url}: it adds {one.trail}, which is no part of the story of {summary.trail}")
        lagging = contents.trails[0].lines[-1].leaf < last_leaf
        elsewhere: list[Contents] = []
        further: list[ProvedTree] = []
        here = {part.trail for part in contents.trails}
        behind = []
        for trace in trails.traces:
            if trace in here:
                continue
            if trace not in linked:
                if proof.state != "false" and not lagging:  # else the link may stand in what is not given out yet
                    problem = f"the API makes {trace} part of it, and no entry of it links to that trail"
                    proof = msgspec.structs.replace(proof, state="false", problem=problem)
                behind.append(f"{trace} is said to be part of it, and is left out: no entry here links to it")
                continue
            try:
                more, proved = self._verified(trace, linked=False)
            except ApiProblem as problem:
                if problem.kind != "not-found":
                    raise
                behind.append(f"{trace} is linked to it, and its shard's log is behind")
                continue
            elsewhere.append(more)
            tree = ProvedTree(origin=proved.origin, size=proved.size, root=proved.root)
            further += [tree] if tree not in further else []
            proof = joined(proof, proved)
        if further:
            proof = msgspec.structs.replace(proof, further=tuple(further))
        story = narrate(
            contents,
            status=_status(contents.trails[0]),
            proof=proof,
            trails=replace(trails, traces=tuple(one for one in trails.traces if one in linked)),
            gaps=[*self._gaps((contents, *elsewhere)), *behind],
            accesses=_read(self.api, _accesses, told),
            flows=self.flows,
            elsewhere=elsewhere,
        )
        return story, contents.trails[0].lines[-1].leaf

    def _contents(self, data: bytes, trail: str) -> Contents:
        """What is in the bundle that the API gave out for this trail; raises `Failure` when it is none, or one of another trail."""
        try:
            contents = parse_members(unpack_bundle(data))
        except VerificationError as error:
            raise Failure(f"{self.api.url}: what it exports is no bundle: {error}") from error
        if contents.trails[0].trail != trail:
            raise Failure(f"{self.api.url}: asked for {trail}, it exports another trail, {contents.trails[0].trail}")
        return contents

    def _verified(self, trail: str, *, linked: bool, last_leaf: int = -1) -> tuple[Contents, Proof]:
        """The trail's bundle, and what of it holds; `last_leaf` is where the API said before that the trail ends."""
        try:
            data = self.api.get(trail_path("/v1/exports", trail), {"page": "false", "linked": str(linked).lower()})
        except ApiProblem as refusal:
            if refusal.kind != "forbidden":
                raise
            shown = f"{self.api.url}/desk/trails/{trail} shows what your role may see of it"
            raise Failure(f"{refusal}: what is told here is proved by a bundle of {trail}; {shown}") from refusal
        contents = self._contents(data, trail)
        try:
            checkpoint = Checkpoint.parse(contents.checkpoint[: contents.checkpoint.rindex(b"\n\n") + 1])
        except (ValueError, VerificationError) as error:
            raise Failure(f"{self.api.url}: what it exports is no bundle: {error}") from error
        trusted = self.key or contents.key
        proof = Proof(
            state="verified" if self.key is not None else "unknown",
            problem=""
            if self.key is not None
            else "the key is the API's own word: say --log-key, from a source that you trust",
            origin=checkpoint.origin,
            size=checkpoint.size,
            root=checkpoint.root.hex(),
            key=f"{trusted.name}+{trusted.key_id.hex()}",
        )
        try:
            report = verify_bundle(data, self.key)
        except VerificationError as error:
            return contents, msgspec.structs.replace(proof, state="false", problem=str(error))
        if cut := _cut(contents):
            return contents, msgspec.structs.replace(proof, state="false", problem=f"the API left something out: {cut}")
        head = contents.trails[0].lines[-1].leaf
        if proof.state == "verified" and head < last_leaf < checkpoint.size:
            # not false: where several answer for one API, the index of the one that exports may be behind
            problem = f"the API says that the trail goes on to leaf {last_leaf}, and gives it out up to leaf {head}"
            proof = msgspec.structs.replace(proof, state="unknown", problem=problem)
        entries = sum(one.entries for one in report.trails)
        return contents, msgspec.structs.replace(proof, entries=entries, events=report.events)

    def _gaps(self, logs: Iterable[Contents]) -> list[str]:
        """What is missing still from the streams that these events came by."""
        streams = {decode_entry(line.entry).stream for one in logs for line in one.entry_lines()} - {""}
        told: list[str] = []
        for stream in sorted(streams):
            try:
                if self._trail(stream_trail(stream), limit=1)["summary"]["status"] != "gap":
                    continue
            except NotFound:
                continue
            rows = [*self.api.lines(trail_path("/v1/trails", stream_trail(stream)), {"events": "false"})]
            told += _read(self.api, partial(_open_gaps, stream), rows)
        if len(told) > MAX_GAPS:
            told[MAX_GAPS:] = [f"and {len(told) - MAX_GAPS:,} more: `tally check` lists them"]
        return told

    def export(self, summary: TrailSummary) -> tuple[bytes, int, tuple[str, ...]]:
        """A trail's story as a bundle, its head as far as it is known here, and which of its traces are not in it.

        Raises:
            Failure: what the API gives out is no bundle, is of another trail, or lacks the beginning of one.
        """
        data = self.api.get(trail_path("/v1/exports", summary.trail))
        trails = _read(self.api, _trails, self._trail(summary.trail, limit=1))
        contents = self._contents(data, summary.trail)
        if cut := _cut(contents):
            raise Failure(f"{self.api.url}: it left something out of what it exports: {cut}")
        inside = {part.trail for part in contents.trails}
        return data, summary.last_leaf, tuple(sorted(trace for trace in trails.traces if trace not in inside))


def _read(api: Api, made: Callable[[Any], Any], told: Any) -> Any:
    try:
        return made(told)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError, VerificationError) as error:
        raise Failure(f"{api.url}: an answer that is not as the API's document says") from error


def _named(told: Mapping[str, Any]) -> str:
    """Which trail an answer is about; its summary must say the same."""
    return str(told["trail"]) if told["trail"] == told["summary"]["trail"] else ""


def _cut(contents: Contents) -> str:
    """Which trail's beginning is not in the bundle; empty when none is missing."""
    for part in contents.trails:
        if part.first:
            return f"{part.trail} begins at position {part.first} there"
    return ""


def _linked_traces(part: TrailPart) -> set[str]:
    """The traces that entries of this trail link to: what is told of other trails is no part of its story (`correlator.story`)."""
    links = (entry.detail.get("to") for line in part.lines if (entry := decode_entry(line.entry)).kind == "link")
    return {one for one in links if isinstance(one, str) and is_trail(one) and kind_of(one) == "trace"}


def _status(part: TrailPart) -> str:
    """`TrailSummary.status` of these entries."""
    try:
        leaves = [IndexedLeaf(leaf=line.leaf, entry=decode_entry(line.entry)) for line in part.lines]
        (row,) = absorb(leaves, dict[str, Row]().get)
    except (KeyError, TypeError, ValueError, Malformed) as error:
        raise VerificationError(f"an entry of {part.trail} is none that this program knows") from error
    return STATUSES[row.status]


def _summary(told: Mapping[str, Any]) -> TrailSummary:
    fields = {
        **{name: told[name] for name in ("trail", "entries", "first_leaf", "last_leaf", "services", "events")},
        **{name: told[name] for name in ("status", "links", "hub")},
        "links_left_out": told.get("links_left_out", 0),  # which an API before this client does not tell
        "first_time": told["first_time"] or "",
        "last_time": told["last_time"] or "",
        "keys": [(one["name"], one["value"]) for one in told["keys"]],
        "amounts": [(one["currency"], one["least"], one["most"]) for one in told["amounts"]],
    }
    return msgspec.convert(fields, TrailSummary)


def _trails(told: Mapping[str, Any]) -> StoryTrails:
    story = told["story"]
    related = [{"trail": one["trail"], "through": one["through"] or ""} for one in story["related"]]
    fields = {name: story[name] for name in ("traces", "traces_left_out", "related_left_out", "hubs")}
    return msgspec.convert({"main": told["trail"], **fields, "related": related}, StoryTrails)


def _searches(told: Mapping[str, Any], name: str) -> list[dict[str, Any]]:
    """Those of this name, with what is looked at of each."""
    found = [one for one in told["searches"] if one["name"] == name]
    return [{"own": one["own"], "principal": one["principal"], "conditions": dict(one["conditions"])} for one in found]


def _open_gaps(stream: str, rows: list[Any]) -> list[str]:
    """As `open_gaps`, of the lines of a trail's answer; the first of them tells of the trail."""
    encoded = [(int(row["leaf"]), msgspec.json.encode(row["entry"], order="sorted")) for row in rows[1:]]
    return open_gaps(stream, [(leaf, decode_entry(data)) for leaf, data in encoded])


def _accesses(told: Mapping[str, Any]) -> list[str]:
    return [_access(one) for one in told["accesses"]["entries"]]


def _access(told: Mapping[str, Any]) -> str:
    refused = f", refused: {told['refused']}" if told["refused"] else ""
    return f"by {told['principal']} at {told['time'][:19]}Z ({told['action']}{refused})"
