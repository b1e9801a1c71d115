"""What happens, as it happens: new trails and verdicts as server-sent events (HTML Living Standard, section 9.2).

A reader is a position in each log and nothing more: what it is told is read from the log when it takes it, a chunk at a time, and readers
that stand at the same place share the reading. So a slow one costs a connection; one that takes nothing is let go of
(`audit_api.streaming`), and goes on where it was, for the id of each event is its leaf index.
"""

import asyncio
import re
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Self

import msgspec

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope
from audit_api.logs import Logs
from audit_api.parameters import Parameter, whole_number
from audit_api.problems import Problem
from audit_api.settings import ApiSettings
from collector.errors import NotFound
from correlator.entry import decode_entry
from correlator.index.vocabulary import KINDS
from correlator.trail import kind_of

__all__ = ["EVENT_STREAM", "Live"]

EVENT_STREAM = "text/event-stream"
POLL_SECONDS = 0.5
HEARTBEAT_SECONDS = 15.0
_CHUNK = 1_024
_SHARED_CHUNKS = 64
_LATEST_CHUNKS = 4
_NEW, _VERDICT = b'"position":0,', b'"kind":"verdict"'
"""In an entry's canonical bytes, or near them: what has neither is not decoded."""

_encode = msgspec.json.Encoder().encode
_Told = tuple[int, str, bytes, bytes]
"""A leaf index, the trail, the event's name, and its data."""


class Live:
    """The operation, and what its readers share. In one event loop."""

    def __init__(self, logs: Logs, settings: ApiSettings) -> None:
        self._logs = logs
        self._settings = settings
        self._readers = 0
        self._chunks: OrderedDict[tuple[int, int, int], asyncio.Future[list[_Told]]] = OrderedDict()
        self._sizes: asyncio.Future[list[int]] | None = None
        self._looked = 0.0
        self.stopping = asyncio.Event()

    def operations(self) -> list[Operation]:
        """Read what happens."""
        most = self._settings.live_seconds
        return [
            Operation(
                operation_id="readLive",
                path="/v1/live",
                tag="trails",
                summary="New trails and verdicts as they are published",
                about=(
                    "Server-sent events `trail` (a trail's first entry) and `verdict`, each with its leaf index"
                    + (" and positions in all logs as id" if self._logs.cut else " as id")
                    + "; `Last-Event-ID` goes on behind it, from the log, however long ago that was. "
                    f"It ends after {most} seconds at most, and asks to be asked again: so every reader passes by who may, and goes on record."
                ),
                action="live.read",
                scoped=True,
                roles=frozenset({"auditor", "sre", "admin"}),
                read=self.read,
                parameters=(
                    Parameter(
                        name="kind",
                        about="Of trails of this family alone.",
                        schema={"type": "string", "enum": list(KINDS)},
                        parse=_kind,
                        example="transaction",
                    ),
                    Parameter(
                        name="after",
                        about="As the header `Last-Event-ID`, which counts first: the id of the last event that was seen.",
                        schema={"type": "string", "maxLength": 1000, "pattern": r"^[0-9]{1,16}(\.[0-9]{1,16}){0,63}$"},
                        parse=_place,
                    ),
                    Parameter(
                        name="seconds",
                        about="How long to wait for more; 0: what is there, and no more.",
                        schema={"type": "integer", "minimum": 0, "maximum": most, "default": most},
                        parse=whole_number(0, most),
                        default=most,
                        example=0,
                    ),
                ),
                answers={EVENT_STREAM: ("EventStream", None)},
            )
        ]

    async def read(self, call: Call, run: Runner) -> Reading:
        """The answer: from the place asked for, else from now on."""
        if self._readers >= self._settings.live_readers:
            raise Problem("too-many-requests", "as many read along as may", headers={"Retry-After": "10"})
        sizes = await self.sizes(run)
        after = call.request.headers.get("last-event-id", "") or call.values["after"]
        places = self._places(after, sizes) if after else sizes
        self._readers += 1
        stream = _Stream(
            self,
            run,
            places,
            call.scope,
            kind=call.values["kind"],
            seconds=call.values["seconds"],
            most_seconds=self._settings.live_seconds,
        )
        return Reading(stream=stream, media_type=EVENT_STREAM, head=places[0] - 1 if not self._logs.cut else -1)

    def _places(self, after: str, sizes: Sequence[int]) -> list[int]:
        """Which leaf comes next in each log."""
        parts = after.split(".")
        if len(parts) != len(sizes) or any(re.fullmatch(r"[0-9]{1,16}", part, re.ASCII) is None for part in parts):
            raise Problem("bad-parameter", "it is not the id of an event of this ledger", parameter="Last-Event-ID")
        places = [int(part) + (not self._logs.cut) for part in parts]
        if any(place > size for place, size in zip(places, sizes, strict=True)):
            raise Problem("bad-parameter", "the log has not come that far", parameter="Last-Event-ID")
        return places

    def id_of(self, places: Sequence[int]) -> str:
        """The id of what was told last."""
        return ".".join(map(str, places)) if self._logs.cut else str(places[0] - 1)

    def leave(self) -> None:
        """A reader is gone."""
        self._readers -= 1

    # Shared reading ---------------------------------------------------------------------------------------------------

    async def sizes(self, run: Runner) -> list[int]:
        """Leaves of each log that are published and indexed, looked for so often and no more."""
        now = asyncio.get_running_loop().time()
        if self._sizes is None or (self._sizes.done() and now - self._looked >= POLL_SECONDS / 2):
            self._looked = now
            self._sizes = asyncio.ensure_future(run(self._look))
        return list(await asyncio.shield(self._sizes))

    def _look(self) -> list[int]:
        return [log.size() for log in self._logs.all]

    async def chunk(self, run: Runner, at: int, start: int, end: int) -> list[_Told]:
        """What there is to tell between two leaves of a log; read once for all who are there."""
        key = (at, start, end)
        found = self._chunks.get(key)
        if found is None or (found.done() and (found.cancelled() or found.exception() is not None)):
            found = self._chunks[key] = asyncio.ensure_future(run(self._read_chunk, at, start, end))
            if len(self._chunks) > _SHARED_CHUNKS:
                self._chunks.popitem(last=False)
        return await asyncio.shield(found)

    def _read_chunk(self, at: int, start: int, end: int) -> list[_Told]:
        log = self._logs.all[at]
        told: list[_Told] = []
        for leaf, data in enumerate(log.evidence.reader.entries(start, end), start):
            if _NEW not in data and _VERDICT not in data:
                continue
            entry = decode_entry(data)
            if not log.shard.holds(entry.trail) or not (entry.position == 0 or entry.kind == "verdict"):
                continue
            what: dict[str, Any] = {"trail": entry.trail, "leaf": leaf, "recorded": entry.recorded}
            if self._logs.cut:
                what["log"] = log.key.name
            if entry.kind == "verdict":
                what["verdict"] = entry.detail
            name = b"verdict" if entry.kind == "verdict" else b"trail"
            told.append((leaf, entry.trail, name, _encode(what)))
        return told

    async def latest(
        self, run: Runner, scope: RowScope, *, kind: str = "", most: int = 50
    ) -> tuple[list[tuple[str, dict[str, Any]]], str]:
        """What was told last, newest first, and the id behind which a reader goes on; empty: from the beginning.

        It looks at the last few thousand leaves of each log, and no further: what is older is found by searching.
        """
        sizes = await self.sizes(run)
        found: list[tuple[str, dict[str, Any]]] = []
        for at, size in enumerate(sizes):
            end, here = size, 0
            for _ in range(_LATEST_CHUNKS):
                if end == 0 or here >= most:
                    break
                start = (end - 1) // _CHUNK * _CHUNK  # where chunks are shared
                told: Sequence[_Told] = await self.chunk(run, at, start, end)
                if kind:
                    told = [one for one in told if kind_of(one[1]) == kind]
                if not scope.whole:
                    told = await run(self.seen, told, scope)
                found += [(name.decode(), msgspec.json.decode(data)) for _, _, name, data in reversed(told)]
                here += len(told)
                end = start
        found.sort(key=lambda one: one[1]["recorded"], reverse=True)
        return found[:most], self.id_of(sizes) if self._logs.cut or sizes[0] > 0 else ""

    def seen(self, told: Sequence[_Told], scope: RowScope) -> list[_Told]:
        """Those of trails that are seen."""
        found = []
        for one in told:
            try:
                self._logs.seen(one[1], scope)
            except NotFound:
                continue
            found.append(one)
        return found


class _Stream:
    """What one reader is told; a `audit_api.streaming.ByteStream`.

    It waits for more for `seconds`, then tells what there is by then, and ends. Whoever is slower than what is published would never come to that
    end: after `most_seconds`, and at a stop, it ends wherever it is.
    """

    def __init__(
        self,
        live: Live,
        run: Runner,
        places: Sequence[int],
        scope: RowScope,
        *,
        kind: str,
        seconds: float,
        most_seconds: float,
    ) -> None:
        loop = asyncio.get_running_loop()
        self._live: Live | None = live
        self._run = run
        self._places = list(places)
        self._known = list(places)  # the places that the reader was told of, by the last id
        self._sizes: list[int] | None = None  # where it ends, once it waits no longer
        self._scope = scope
        self._kind = kind
        self._until = loop.time() + seconds
        self._most = loop.time() + most_seconds
        self._spoke = loop.time()
        self._begun = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        live, loop = self._live, asyncio.get_running_loop()
        if live is None:
            raise StopAsyncIteration
        if not self._begun:
            self._begun = True
            return b"retry: 3000\n\n"
        while True:
            if live.stopping.is_set() or loop.time() >= self._most:
                return self._last(live)
            sizes = self._sizes
            if sizes is None:
                left = self._until - loop.time()
                sizes = await live.sizes(self._run)
                if left <= 0:
                    self._sizes = sizes
            behind = [at for at, size in enumerate(sizes) if self._places[at] < size]
            for at in behind:
                said = await self._told(live, at, sizes[at])
                if said:
                    self._spoke = loop.time()
                    return said
            if not behind and self._sizes is not None:
                return self._last(live)
            if loop.time() - self._spoke >= HEARTBEAT_SECONDS:
                self._spoke = loop.time()
                return self._here(live) if min(self._places) > 0 else b": here\n\n"
            if not behind:
                left = self._until - loop.time()
                try:
                    await asyncio.wait_for(live.stopping.wait(), min(POLL_SECONDS, max(left, 0.0)))
                except TimeoutError:
                    pass

    def _last(self, live: Live) -> bytes:
        """How far it has come, if the reader was not told, who else would have the same passed over again; after that there is no more."""
        if self._known == self._places:
            raise StopAsyncIteration
        return self._here(live)

    def _here(self, live: Live) -> bytes:
        self._known = list(self._places)
        return f"id: {live.id_of(self._places)}\n\n".encode()

    async def _told(self, live: Live, at: int, size: int) -> bytes:
        """The events of the next chunk of a log; its place is behind it then."""
        end = min(self._places[at] + _CHUNK, size)
        told: Sequence[_Told] = await live.chunk(self._run, at, self._places[at], end)
        if self._kind:
            told = [one for one in told if kind_of(one[1]) == self._kind]
        if told and not self._scope.whole:
            told = await self._run(live.seen, told, self._scope)
        said = []
        for leaf, _, name, data in told:
            self._places[at] = leaf + 1
            self._known = list(self._places)
            said.append(b"id: %b\nevent: %b\ndata: %b\n\n" % (live.id_of(self._places).encode(), name, data))
        self._places[at] = end
        return b"".join(said)

    async def aclose(self) -> None:
        """Give the reader's place back; once."""
        if self._live is not None:
            self._live.leave()
            self._live = None


def _place(text: str) -> str:
    if re.fullmatch(r"[0-9]{1,16}(\.[0-9]{1,16}){0,63}", text, re.ASCII) is None:
        raise ValueError("it is not the id of an event")
    return text


def _kind(text: str) -> str:
    if text not in KINDS:
        raise ValueError(f"it is none of {', '.join(KINDS)}")
    return text
