"""Bundles of which somebody has cut something off, in the way that leaves all that is in them true."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from correlator.archive import pack
from correlator.bundle import TrailPart, encode_members
from correlator.entry import Entry, decode_entry
from correlator.unbundle import parse_members, unpack_bundle

__all__ = ["cut_to"]


def cut_to(data: bytes, keep: Callable[[int, list[Entry]], bool]) -> bytes:
    """A bundle of its first trail alone, of those entries that `keep` (position, all of them) says, with what they need: it verifies."""
    contents = parse_members(unpack_bundle(data))
    trail = contents.trails[0]
    entries = [decode_entry(line.entry) for line in trail.lines]
    kept = [at for at in range(len(entries)) if keep(at, entries)]
    shown = {(entries[at].stream, entries[at].sequence) for at in kept if entries[at].kind == "event"}
    sequences = {sequence for _, sequence in shown}
    headers = [
        replace(line, paths=tuple(path for path in line.paths if path[0] in sequences)) for line in contents.headers
    ]
    headers = [line for line in headers if line.paths]
    lines = tuple(trail.lines[at] for at in kept)
    leaves = {line.leaf for line in (*lines, *contents.enrolments)} | {line.leaf for line in headers}
    cut = replace(
        contents,
        trails=(TrailPart(trail=trail.trail, first=kept[0], lines=lines),),
        headers=tuple(headers),
        proofs={leaf: path for leaf, path in contents.proofs.items() if leaf in leaves},
        page=None,
    )
    return pack(encode_members(cut))
