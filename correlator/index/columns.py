"""A trail's row as columns of SQLite, and back."""

from array import array
from collections.abc import Sequence

import msgspec

from correlator.index.rows import Row, names_of
from correlator.index.vocabulary import KINDS

__all__ = ["columns_of", "row_of", "run_column", "run_of"]

_encode_text = msgspec.json.Encoder().encode
_decode_names = msgspec.json.Decoder(list[str]).decode
_decode_keys = msgspec.json.Decoder(list[tuple[str, str]]).decode
_decode_amounts = msgspec.json.Decoder(dict[str, tuple[str, str]]).decode


def columns_of(row: Row) -> tuple[object, ...]:
    """What is written of it, in the order of the table `trails` (`correlator.index.schema`)."""
    tenant, kind = names_of(row.trail)
    return (
        row.first_leaf,
        row.trail,
        tenant,
        KINDS.index(kind),
        row.entries,
        row.last_leaf,
        row.first_time,
        row.last_time,
        row.status,
        row.links,
        _encode(sorted(row.services)),
        _encode(sorted(row.events)),
        _encode(list(row.keys)),
        _encode(row.amounts) if row.amounts else "{}",
    )


def row_of(found: tuple[object, ...]) -> Row:
    """The row of what a search gives: `correlator.index.search.COLUMNS`.

    Raises:
        msgspec.DecodeError: a column does not hold what `columns_of` writes.
    """
    first_leaf, trail, entries, last_leaf, first_time, last_time, status, links, services, events, keys, amounts = found
    return Row(
        trail=str(trail),
        first_leaf=int(first_leaf),  # type: ignore[call-overload]  # SQLite's column types are ours
        entries=int(entries),  # type: ignore[call-overload]  # as above
        last_leaf=int(last_leaf),  # type: ignore[call-overload]  # as above
        first_time=str(first_time),
        last_time=str(last_time),
        status=int(status),  # type: ignore[call-overload]  # as above
        links=int(links),  # type: ignore[call-overload]  # as above
        services=set(_decode_names(str(services))),
        events=set(_decode_names(str(events))),
        keys=dict.fromkeys(_decode_keys(str(keys))),
        amounts=_decode_amounts(str(amounts)),
    )


def run_column(leaves: Sequence[int]) -> bytes:
    """A run of leaf indexes, as the table `runs` keeps it."""
    return array("Q", leaves).tobytes()


def run_of(blob: bytes) -> list[int]:
    """The leaf indexes of a run."""
    return array("Q", blob).tolist()


def _encode(value: object) -> str:
    return _encode_text(value).decode()
