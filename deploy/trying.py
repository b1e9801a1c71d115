"""Mappings tried on the lines of a file: what each line would become, and in which trail it would stand. Nothing is kept."""

import random
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import msgspec

from collector.errors import Malformed
from collector.event import Facts, Origin, decode_facts
from collector.extract import Extractor
from collector.importer.source import MAX_ROW_BYTES
from collector.mapping.mapper import Mapper
from collector.prepare import Preparer
from collector.protect import Protector
from collector.receive.json_lines import object_of_line
from collector.receive.record import arrival_of_record
from correlator.stitch import Stitcher
from deploy.config import Config

__all__ = ["Tried", "try_lines"]

_STREAM = "trial/0000000000000000"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One line.

    Attributes:
        line: its number, from 1.
        mapping: the mapping that was for it; empty when none was.
        unmapped: places whose value did not fit.
        event: the event as it would be written, masked; None when it would be a dead letter.
        trail, why: where it would stand, and the reason.
        refused: why it would be a dead letter.
    """

    line: int
    mapping: str = ""
    unmapped: tuple[str, ...] = ()
    event: dict[str, Any] | None = None
    trail: str = ""
    why: str = ""
    refused: str = ""


def try_lines(lines: Iterable[bytes], mapper: Mapper, config: Config, origin: Origin) -> Iterator[Tried]:
    """What becomes of each line: a JSON object is a record, anything else a record with the line as its `message`.

    Raises what `lines` raises, and `Malformed` when ``[collector]`` holds rules that cannot be used.
    """
    settings = config.collector
    preparer = Preparer(
        extractor=Extractor(settings.stitch),
        protector=Protector(
            token_key=random.randbytes(32),  # these tokens join nothing: the sidecar's are other ones
            masked_fields=settings.protect.masked_fields,
            dropped_fields=settings.protect.dropped_fields,
        ),
        clock=None,
        max_event_bytes=settings.spool.max_event_bytes,
    )
    trial = _Trial(mapper, preparer, Stitcher(config.correlator.key_order))
    for number, line in enumerate(lines, 1):
        bare = line.rstrip(b"\r\n")
        if bare.strip():
            yield trial.of(number, bare, origin, settings.service)


@dataclass(frozen=True, slots=True)
class _Trial:
    mapper: Mapper
    preparer: Preparer
    stitcher: Stitcher

    def of(self, number: int, line: bytes, origin: Origin, service: str) -> Tried:
        if len(line) > MAX_ROW_BYTES:
            return Tried(line=number, refused=f"a line of more than {MAX_ROW_BYTES} bytes")
        try:
            record = (
                object_of_line(line) if line.lstrip().startswith(b"{") else {"message": line.decode("utf-8", "replace")}
            )
        except Malformed as error:
            return Tried(line=number, refused=str(error))
        arrival = self.mapper.map(arrival_of_record(record, origin=origin, service=service))
        marks = arrival.event.marks
        mapping = next((mark[7:] for mark in marks if mark.startswith("mapped:")), "")
        unmapped = tuple(mark[9:] for mark in marks if mark.startswith("unmapped:"))
        prepared = self.preparer.prepare([arrival])
        if prepared.refused:
            return Tried(line=number, mapping=mapping, unmapped=unmapped, refused=str(prepared.refused[0].error))
        facts: Facts = decode_facts(prepared.facts[0])
        placed = self.stitcher.place(facts, _STREAM)
        return Tried(
            line=number,
            mapping=mapping,
            unmapped=unmapped,
            event=msgspec.json.decode(prepared.events[0]),
            trail="the trail of its stream" if placed.why == "stream" else placed.trail,
            why=placed.why,
        )
