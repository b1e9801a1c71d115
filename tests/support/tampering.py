"""The tamper table: every thing that a ledger keeps × flip, delete, swap, truncate; and what the check must name then.

Tables and columns are taken from the schemas themselves, so that a new one is tampered with from its first day.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.store import sqlite as store_schema
from correlator.index import schema as index_schema
from tests.support.whole_ledger import WholeLedger

__all__ = ["HARMLESS", "LEDGER_CASES", "MEMBER_CASES", "QUICK_CASES", "Case", "MemberCase", "edit", "flip_at"]

Rows = list[list[Any]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One change: to which kind of thing, which one, what is done, and what a finding must say (a regular expression)."""

    kind: str
    thing: str
    action: str
    do: Callable[[WholeLedger], None]
    named: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.thing}: {self.action}"


HARMLESS: Mapping[str, str] = {
    "log: an earlier partial tile: delete": "a later tile holds the same hashes (C2SP tlog-tiles, partial tiles)",
    "log: an earlier partial bundle: delete": "a later bundle holds the same entries",
    "spool: the first segment: delete": "the log holds its events: the sidecar lets go of it the same way",
    "spool: the last segment: append a byte": "what a crash leaves, and nobody was told of: cut off at the next start",
}
"""Changes that are no finding, each with its reason."""


# ------------------------------------------------------------------------------------------------------ databases


def _tables(schema: str) -> dict[str, list[tuple[str, str, bool]]]:
    """Table -> its columns: name, type, whether it is part of the key."""
    with closing(sqlite3.connect(":memory:")) as db:
        db.executescript(schema)
        names = [row[0] for row in db.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name")]
        return {
            name: [(row[1], row[2], row[5] > 0) for row in db.execute(f"PRAGMA table_info({name})")] for name in names
        }


def _rewrite(path: Path, table: str, change: Callable[[Rows], Rows | None]) -> None:
    """Replace a table's rows by what `change` makes of them ."""
    with closing(sqlite3.connect(path)) as db:
        rows = [list(row) for row in db.execute(f"SELECT * FROM {table}")]
        before = [list(row) for row in rows]
        changed = change(rows)
        after = rows if changed is None else changed
        assert after != before, f"nothing was changed in {table}"
        db.execute(f"DELETE FROM {table}")
        if after:
            marks = ", ".join("?" * len(after[0]))
            db.executemany(f"INSERT OR REPLACE INTO {table} VALUES ({marks})", after)
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def flipped(value: Any) -> Any:
    """The value with its lowest bit, or one bit in its middle, turned over."""
    if isinstance(value, int):
        return value ^ 1
    if isinstance(value, str):
        middle = len(value) // 2
        return value[:middle] + chr(ord(value[middle]) ^ 1) + value[middle + 1 :] if value else "a"
    data = bytearray(value)
    if not data:
        return b"\x00"
    data[len(data) // 2] ^= 1
    return bytes(data)


def _nothing(_: Any) -> bytes:
    return b""


def _no_rows(_: Rows) -> Rows:
    return []


def _cell(row: int, column: int, change: Callable[[Any], Any]) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        at = row if row < 0 else min(row, len(rows) - 1)
        rows[at][column] = change(rows[at][column])

    return apply


def _delete(row: int) -> Callable[[Rows], Rows]:
    return lambda rows: [one for at, one in enumerate(rows) if at != min(row, len(rows) - 1)]


def _swap(row: int, columns: Sequence[int]) -> Callable[[Rows], None]:
    def apply(rows: Rows) -> None:
        one, other = rows[row], rows[row + 1]
        for column in columns:
            one[column], other[column] = other[column], one[column]

    return apply


_NAMED: Mapping[str, str] = {
    "store": r"\b(batch|event)s? \d+\b.* stream \S+/|stream \S+/.*\b(batch|event)s? \d+\b",
    "index": r"^index(, \S+)?: ",
}
"""What every finding of a database says: in the store which batch or event of which stream, in the index which trail."""


def _database(kind: str, schema: str, path: Callable[[WholeLedger], Path]) -> Iterator[Case]:
    def case(table: str, thing: str, action: str, change: Callable[[Rows], Rows | None]) -> Case:
        return Case(
            kind=kind,
            thing=thing,
            action=action,
            do=lambda ledger: _rewrite(path(ledger), table, change),
            named=_NAMED[kind],
        )

    for table, columns in _tables(schema).items():
        for number, (name, type_, key) in enumerate(columns):
            thing = f"{table}.{name}"
            yield case(table, thing, "renumber" if key and type_ == "INTEGER" else "flip", _cell(1, number, flipped))
            if type_ == "BLOB":
                yield case(table, thing, "truncate", _cell(1, number, lambda value: value[:-1]))
                yield case(table, thing, "empty", _cell(1, number, _nothing))
        yield case(table, f"a row of {table}", "delete", _delete(1))
        keys = [number for number, column in enumerate(columns) if column[2]]
        rest = [number for number, column in enumerate(columns) if not column[2] and not _finds(table, column[0])]
        if rest and table != "progress" and keys:
            yield case(table, f"two rows of {table}", "swap", _swap(1, rest))
        yield case(table, f"all of {table}", "delete", _no_rows)


def _finds(table: str, column: str) -> bool:
    """Whether the column is part of what finds the row: the rest is what two rows exchange."""
    return (table, column) in {("batches", "stream"), ("batches", "number"), ("streams", "stream")}


def _closing_batch(column: str, change: Callable[[Any], Any]) -> Callable[[WholeLedger], None]:
    """Change a column of the batch without events that closes the import."""

    def do(ledger: WholeLedger) -> None:
        names = [name for name, _, _ in _tables(store_schema._SCHEMA)["batches"]]

        def apply(rows: Rows) -> None:
            (row,) = (row for row in rows if row[names.index("count")] == 0)
            row[names.index(column)] = change(row[names.index(column)])

        _rewrite(ledger.places.store, "batches", apply)

    return do


def _swapped_bodies(ledger: WholeLedger) -> None:
    """Exchange two events of one batch: their bytes, and their lengths."""
    with closing(sqlite3.connect(ledger.places.store)) as db:
        batch, lengths, events = db.execute(
            "SELECT batches.id, lengths, events FROM batches JOIN bodies ON bodies.batch = batches.id LIMIT 1 OFFSET 1"
        ).fetchone()
        sizes = memoryview(lengths).cast("I").tolist()
        first, second = events[: sizes[0]], events[sizes[0] : sizes[0] + sizes[1]]
        db.execute("UPDATE bodies SET events = ? WHERE batch = ?", (second + first + events[sum(sizes[:2]) :], batch))
        swapped = lengths[4:8] + lengths[:4] + lengths[8:]
        db.execute("UPDATE batches SET lengths = ? WHERE id = ?", (swapped, batch))
        db.commit()


# ------------------------------------------------------------------------------------------------------ files


def edit(path: Path, change: Callable[[bytes], bytes]) -> None:
    """Replace a file's bytes."""
    before = path.read_bytes()
    after = change(before)
    assert after != before, f"nothing was changed in {path.name}"
    path.write_bytes(after)


def flip_at(place: float) -> Callable[[bytes], bytes]:
    """Turn one bit over at this part of the way through."""

    def change(data: bytes) -> bytes:
        out = bytearray(data)
        out[min(int(len(out) * place), len(out) - 1)] ^= 1
        return bytes(out)

    return change


Find = Callable[[WholeLedger], list[Path]]


def _glob(pattern: str, *, at: int | None = None) -> Find:
    def find(ledger: WholeLedger) -> list[Path]:
        found = sorted(ledger.places.root.glob(pattern), key=lambda path: (len(path.name), path.name))
        assert found, pattern
        return found if at is None else [found[at]]

    return find


BYTE_CHANGES: Mapping[str, Callable[[bytes], bytes]] = {
    "flip in its first byte": flip_at(0.0),
    "flip in its middle": flip_at(0.5),
    "flip in its last byte": flip_at(1.0),
    "cut off a byte": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": _nothing,
    "append a byte": lambda data: (
        data + b"\x01"
    ),  # not a zero: behind a segment's last frame that is room not written yet
}


def _file(
    kind: str, thing: str, find: Find, named: str, changes: Mapping[str, Callable[[bytes], bytes]]
) -> Iterator[Case]:
    def changed(change: Callable[[bytes], bytes]) -> Callable[[WholeLedger], None]:
        return lambda ledger: edit(find(ledger)[0], change)

    for action, change in changes.items():
        yield Case(kind=kind, thing=thing, action=action, do=changed(change), named=named)
    yield Case(kind=kind, thing=thing, action="delete", do=lambda ledger: find(ledger)[0].unlink(), named=named)


def _exchange(one: Find, other: Find) -> Callable[[WholeLedger], None]:
    def do(ledger: WholeLedger) -> None:
        (first,), (second,) = one(ledger), other(ledger)
        ours, theirs = first.read_bytes(), second.read_bytes()
        assert ours != theirs
        first.write_bytes(theirs)
        second.write_bytes(ours)

    return do


def _log_cases() -> Iterator[Case]:
    tile, bundle = "log/tile/0", "log/tile/entries"
    things = {
        "a full hash tile": (_glob(f"{tile}/000"), "log tile/0/000"),
        "a full entry bundle": (_glob(f"{bundle}/000"), "log tile/entries/000"),
        "the newest partial tile": (_glob(f"{tile}/002.p/*", at=-1), "log tile/0/002.p/"),
        "the newest partial bundle": (_glob(f"{bundle}/002.p/*", at=-1), "log tile/entries/002.p/"),
        "an earlier partial tile": (_glob(f"{tile}/002.p/*", at=0), "log tile/0/002.p/"),
        "an earlier partial bundle": (_glob(f"{bundle}/002.p/*", at=0), "log tile/entries/002.p/"),
        "a tile of level 1": (_glob("log/tile/1/000.p/*", at=-1), "log tile/1/000.p/"),
        "the checkpoint": (_glob("log/checkpoint"), "log checkpoint"),
        "the head": (_glob("log/head"), "log head"),
        "a staging": (_glob("log/staging/*", at=0), "log staging/"),
    }
    for thing, (find, named) in things.items():
        yield from _file("log", thing, find, named, BYTE_CHANGES)
    swaps = {
        "two hash tiles": (_glob(f"{tile}/000"), _glob(f"{tile}/001"), "log tile/0/000"),
        "two entry bundles": (_glob(f"{bundle}/000"), _glob(f"{bundle}/001"), "log tile/entries/000"),
        "a tile and its bundle": (_glob(f"{tile}/001"), _glob(f"{bundle}/001"), "log tile/entries/001"),
        "checkpoint and head": (_glob("log/checkpoint"), _glob("log/head"), "log checkpoint"),
    }
    for thing, (one, other, named) in swaps.items():
        yield Case(kind="log", thing=thing, action="swap", do=_exchange(one, other), named=named)
    yield Case(
        kind="log",
        thing="a bundle and its tiles",
        action="change together",
        do=_rewritten_entry,
        named="log tile/0/000",
    )


def _rewritten_entry(ledger: WholeLedger) -> None:
    """Change an entry and write its tile anew to match, as someone does who has read the specification."""
    from correlator.merkle import leaf_hashes
    from correlator.tiles import encode_bundle, parse_bundle

    folder = ledger.places.log / "tile"
    entries = parse_bundle((folder / "entries" / "000").read_bytes(), 256, "000")
    entries[5] = entries[5].replace(b'"position":', b'"position":1', 1)
    (folder / "entries" / "000").write_bytes(encode_bundle(entries))
    (folder / "0" / "000").write_bytes(b"".join(leaf_hashes(entries)))


def _lines(change: Callable[[list[bytes]], list[bytes]]) -> Callable[[bytes], bytes]:
    return lambda data: b"".join(change(data.splitlines(keepends=True)))


def _signature_flipped(lines: list[bytes]) -> list[bytes]:
    signature, _, header = lines[1].partition(b" ")
    raw = bytearray(base64.b64decode(signature))
    raw[7] ^= 1
    return [lines[0], base64.b64encode(bytes(raw)) + b" " + header, *lines[2:]]


HEADER_CHANGES: Mapping[str, Callable[[bytes], bytes]] = {
    "flip in a header": flip_at(0.5),
    "flip in a signature": _lines(_signature_flipped),
    "cut off its last byte": lambda data: data[:-1],
    "cut in half": lambda data: data[: len(data) // 2],
    "empty": _nothing,
    "delete the first line": _lines(lambda lines: lines[1:]),
    "delete a line": _lines(lambda lines: [*lines[:1], *lines[2:]]),
    "delete the last line": _lines(lambda lines: lines[:-1]),
    "swap two lines": _lines(lambda lines: [lines[1], lines[0], *lines[2:]]),
}


def _spool_cases() -> Iterator[Case]:
    folder = "spool/gateway/*"
    things = {
        "the first segment": (_glob(f"{folder}/*.seg", at=0), "spool gateway/"),
        "a segment between": (_glob(f"{folder}/*.seg", at=1), "spool gateway/"),
        "the last segment": (_glob(f"{folder}/*.seg", at=-1), "spool gateway/"),
    }
    for thing, (find, named) in things.items():
        yield from _file("spool", thing, find, named, BYTE_CHANGES)
    yield Case(
        kind="spool",
        thing="two segments",
        action="swap",
        do=_exchange(_glob(f"{folder}/*.seg", at=0), _glob(f"{folder}/*.seg", at=1)),
        named="spool gateway/",
    )
    yield from _file("spool", "the header log", _glob(f"{folder}/headers-*.log"), "spool gateway/", HEADER_CHANGES)
    meta = {
        "flip in the ledger": lambda data: data.replace(b"test.example", b"test.exbmple"),
        "flip in the stream": lambda data: data.replace(b'"gateway/', b'"gatewax/'),
        "cut in half": BYTE_CHANGES["cut in half"],
        "empty": BYTE_CHANGES["empty"],
    }
    yield from _file("spool", "meta.json", _glob(f"{folder}/meta.json"), "spool gateway/", meta)


def _store_extra() -> Iterator[Case]:
    for column in ("first", "count", "lengths", "header", "signature", "facts"):
        yield Case(
            kind="store",
            thing=f"batches.{column} of a batch without events",
            action="flip",
            do=_closing_batch(column, flipped),
            named="store, batch 2 of stream import/",
        )
    yield Case(
        kind="store", thing="two events of a batch", action="swap", do=_swapped_bodies, named=r"event \d+ of stream"
    )


def _database_files() -> Iterator[Case]:
    changes = {name: BYTE_CHANGES[name] for name in ("flip in its first byte", "cut in half", "empty")}
    for kind in ("store", "index"):
        yield from _file(kind, f"{kind}.sqlite", _glob(f"{kind}.sqlite"), f"^{kind}: ", changes)


LEDGER_CASES: Sequence[Case] = (
    *_database("store", store_schema._SCHEMA, lambda ledger: ledger.places.store),
    *_store_extra(),
    *_database_files(),
    *_log_cases(),
    *_database("index", index_schema.SCHEMA, lambda ledger: ledger.places.index),
    *_spool_cases(),
)
"""What `tally check` must find, unless `HARMLESS` says why not."""


def _quick() -> Iterator[Case]:
    """One case of each thing, not always the same action; of the index every third thing."""
    things: dict[tuple[str, str], list[Case]] = {}
    for case in LEDGER_CASES:
        things.setdefault((case.kind, case.thing), []).append(case)
    for at, ((kind, _), cases) in enumerate(things.items()):
        if kind != "index" or at % 3 == 0:
            yield cases[at % len(cases)]


QUICK_CASES: Sequence[Case] = tuple(_quick())
"""Those that run with every test run; the others are marked slow."""


# ------------------------------------------------------------------------------------------------------ bundles


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberCase:
    """A change to one member of a bundle (None takes it out); `named` must match what `tally verify` says."""

    member: str
    action: str
    change: Callable[[bytes], bytes | None]
    named: str = ""

    def __str__(self) -> str:
        return f"{self.member}: {self.action}"


def _taken_out(_: bytes) -> None:
    return None


def _member_named(member: str, action: str) -> str:
    """What is said of a changed member: its name; or what it holds, where that alone tells."""
    if member == "checkpoint":
        return r"checkpoint|^manifest\.json: ledger is"
    if member == "proofs.ndjson" and action != "empty":
        return r"^proofs\.ndjson|leaf \d+ does not lead to the root"
    if action == "empty":
        return rf"counts\.{member.partition('.')[0]}|counts\.facts|{member}"
    return member


def _member_cases() -> Iterator[MemberCase]:
    for member in (
        "manifest.json",
        "checkpoint",
        "trail.ndjson",
        "headers.ndjson",
        "enrolments.ndjson",
        "proofs.ndjson",
        "index.html",
    ):
        for action, change in BYTE_CHANGES.items():
            named = _member_named(member, action)
            yield MemberCase(member=member, action=action, change=change, named=named)
        if member != "index.html":  # may be left out
            yield MemberCase(member=member, action="delete", change=_taken_out, named=member)
        if member.endswith(".ndjson"):
            counted = rf"{member}|counts\.(facts|{member.partition('.')[0]})"
            yield MemberCase(
                member=member, action="delete a line", change=_lines(lambda lines: lines[1:]), named=counted
            )
            swapped = _lines(lambda lines: [*lines[1::-1], *lines[2:]])
            yield MemberCase(member=member, action="swap two lines", change=swapped, named=member)


MEMBER_CASES: Sequence[MemberCase] = tuple(_member_cases())
"""What `tally verify` must find."""
