"""Runs the benches and prints their tables as Markdown. `python -m bench [PART …]`; by default all that need no more than Python."""

from __future__ import annotations

import argparse
import platform
import shutil
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

from bench.answering import answering_seconds
from bench.auditors import Phase, bench_auditors
from bench.comparison import print_comparison
from bench.end_to_end import bench_end_to_end, bench_open_trails
from bench.exporting import bench_export
from bench.flood import bench_flood
from bench.floor import fdatasync_seconds, minimal_loop
from bench.forward import bench_forward, idle_usage
from bench.fraud import BUDGET, bench_alerts, bench_fraud, data_folder
from bench.importing import bench_import
from bench.opensearch import Row, bench_opensearch
from bench.opensearch_ledger import Block, bench_blocks, bench_fetch
from bench.process import load_average
from bench.records import single_message
from bench.stages import bench_stages
from bench.trail_fetch import bench_trail_fetch
from bench.verification import bench_verification

_MIB = 1024 * 1024
_PARTS = ("stages", "forward", "end-to-end", "import", "trail", "open-trails", "verify")
_MORE_PARTS = (
    "flood",
    "collector",
    "opensearch",
    "opensearch-end-to-end",
    "opensearch-trail",
    "fraud",
    "export",
    "auditors",
)
"""Only when asked for: most need more than Python, `export` a quarter of an hour, and `auditors` a quiet machine."""


def main() -> None:
    """Parse the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", choices=[*_PARTS, *_MORE_PARTS, []], default=[])
    parser.add_argument("--events", type=int, default=100_000, help="events in the throughput rows")
    parser.add_argument("--stored", type=int, default=1_000_000, help="events stored when trails are fetched")
    parser.add_argument("--requests", type=int, default=1_000, help="trails fetched")
    parser.add_argument("--leaves", type=int, default=1_000_000, help="leaves in the verification row")
    parser.add_argument(
        "--warming", type=int, default=200_000, help="events that a server is warmed with, and that do not count"
    )
    parser.add_argument(
        "--growth",
        action="store_true",
        help="opensearch-end-to-end as the ledger grows: a block of --events at each of --sizes (an hour and more)",
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[100_000, 1_000_000, 5_000_000],
        help="events stored when a block is measured",
    )
    parser.add_argument("--auditors", type=int, default=200, help="auditors at once")
    parser.add_argument("--think", type=float, default=2.0, help="mean seconds between an answer and the next question")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="how long the auditors ask, alone and beside an export"
    )
    parser.add_argument("--folder", type=Path, default=None, help="where to write (the disk that is measured)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="tally-bench-", dir=arguments.folder))
    try:
        print(f"Python {platform.python_version()}, {platform.machine()}; load average before: {load_average()}\n")
        parts = arguments.parts or _PARTS
        for name, bench in _benches(folder, arguments).items():
            if name in parts:
                bench()
        print(f"\nload average after: {load_average()}")
    finally:
        shutil.rmtree(folder)


def _benches(folder: Path, arguments: argparse.Namespace) -> Mapping[str, Callable[[], None]]:
    """Every part, in the order in which they are run."""
    events, stored, requests = arguments.events, arguments.stored, arguments.requests
    return {
        "stages": partial(_stages, folder, events),
        "forward": partial(_forward, folder, events),
        "end-to-end": partial(_end_to_end, folder, events),
        "import": partial(_import, folder, events),
        "trail": partial(_trail, folder, stored, requests),
        "open-trails": partial(_open_trails, folder, stored),
        "verify": partial(_verify, folder, arguments.leaves),
        "flood": partial(_flood, folder),
        "collector": partial(print_comparison, folder / "collector", events),
        "export": partial(_export, folder, stored),
        "auditors": partial(_auditors, folder, arguments),
        "opensearch": partial(_opensearch, events, arguments.warming),
        "opensearch-end-to-end": partial(_opensearch_end_to_end, folder, arguments),
        "opensearch-trail": partial(_opensearch_trail, folder, stored, requests),
        "fraud": partial(_fraud, folder),
    }


def _stages(folder: Path, events: int) -> None:
    floor_us, _ = minimal_loop(_made(folder / "floor-stages"), events)
    row = bench_stages(folder / "stages", events=events)
    to_spool = row.decode + row.prepare + row.spool
    print("## Where a sidecar's microseconds go\n")
    print(f"floor: decode, hash, insert: {floor_us:.1f} µs CPU an event\n")
    print(
        "| decode | normalise, protect, encode, hash | spool | decode to spool | ÷ floor | cut, sign, ship to SQLite |"
    )
    print("|---|---|---|---|---|---|")
    print(
        f"| {row.decode:.1f} | {row.prepare:.1f} | {row.spool:.1f} | {to_spool:.1f} | {to_spool / floor_us:.1f} |"
        f" {row.ship:.1f} |\n",
        flush=True,
    )


def _fraud(folder: Path) -> None:
    for one in bench_fraud(data_folder()):
        found = one.found
        fraud = found.fraud or 0
        print(f"\n### {one.name}: {found.payments:,}, of which {fraud:,} fraud\n")
        print("| rule | told | of all | precision | recall |\n|---|---|---|---|---|")
        rows = [(name, score.told, score.right) for name, score in (*found.rules.items(), ("any rule", found.any_rule))]
        rows += ((f"baseline: {name}, {BUDGET:.1%}", told, right) for name, (told, right) in one.baselines.items())
        _told(rows, payments=found.payments, fraud=fraud)
        later = one.later
        print(f"\nFrom {later.begins} on: {later.payments:,}, of which {later.fraud:,} fraud\n")
        print("| who | told | of all | precision | recall |\n|---|---|---|---|---|")
        _told([(name, *of) for name, of in later.told.items()], payments=later.payments, fraud=later.fraud)
        if not later.model:
            print("\nThe offline model was not run: scikit-learn is missing, `make bench` installs it.")
        print(
            f"\n{one.payments_a_second:,.0f} payments/s through the rules on one core;"
            f" {one.declared_a_second:,.0f}/s without the trees",
            flush=True,
        )
    row = bench_alerts(folder / "alerts", payments=4_000, payments_a_second=200.0)
    print(
        f"\n### From a payment to its alert\n\n{row.payments:,} payments at {row.payments_a_second:.0f} a second, {row.alerts} of them"
        f" suspicious, through sidecar, correlator and detector: p50 {row.p50:.2f} s, p99 {row.p99:.2f} s",
        flush=True,
    )


def _told(rows: Sequence[tuple[str, int, int]], *, payments: int, fraud: int) -> None:
    """Rows of who told, how many payments, and how many of them were fraud."""
    for name, told, right in rows:
        precision = right / told if told else 0.0
        print(f"| {name} | {told:,} | {told / payments:.2%} | {precision:.3f} | {right / max(fraud, 1):.3f} |")


def _opensearch(events: int, warming: int) -> None:
    rows = bench_opensearch(events=events, warming=warming)
    reference = rows[1].events_a_second
    print("\n## Store on OpenSearch: one node, one connection, synced before each answer\n")
    print("| | events/s | ÷ helpers.bulk | CPU µs an event | of the server |")
    print("|---|---|---|---|---|")
    for row in rows:
        print(
            f"| {row.name} | {row.events_a_second:,.0f} | {row.events_a_second / reference:.2f} |"
            f" {row.client_us:.1f} | {row.server_us:.1f} |"
        )


def _opensearch_end_to_end(folder: Path, arguments: argparse.Namespace) -> None:
    print("\n## Forward → proved trail, with store and index on OpenSearch: one node, synced before each answer\n")
    head = "| stored before | events/s | ÷ helpers.bulk | CPU µs an event: sidecar | correlator | server | helpers.bulk events/s | of the server | raw events/s |"
    print(head)
    print("|---|---|---|---|---|---|---|---|---|")
    # the same size again is another turn
    sizes = sorted(arguments.sizes) if arguments.growth else [arguments.warming] * 3
    for block, references in bench_blocks(folder / "whole", events=arguments.events, sizes=sizes):
        _block_row(block, references)


def _block_row(block: Block, references: Sequence[Row]) -> None:
    rate, (bulk, raw) = block.events_a_second, references
    print(
        f"| {block.stored:,} | {rate:,.0f} | {rate / bulk.events_a_second:.2f} | {block.collector_us:.1f} |"
        f" {block.correlator_us:.1f} | {block.server_us:.1f} | {bulk.events_a_second:,.0f} | {bulk.server_us:.1f} |"
        f" {raw.events_a_second:,.0f} |",
        flush=True,
    )


def _opensearch_trail(folder: Path, stored: int, requests: int) -> None:
    rows = bench_fetch(folder / "fetch", events=stored, requests=requests)
    print(f"\n## One trail, with {stored:,} events on OpenSearch\n")
    print("| | p50 ms | p99 ms | kB an answer |")
    print("|---|---|---|---|")
    for row in rows:
        print(f"| {row.name} | {row.p50 * 1e3:.1f} | {row.p99 * 1e3:.1f} | {row.answer_bytes / 1e3:.0f} |")


def _forward(folder: Path, events: int) -> None:
    floor_us, floor_rate = minimal_loop(folder, events)
    print("## Forward → durable ack\n")
    print(f"floor: decode, hash, insert: {floor_us:.1f} µs CPU an event, {floor_rate:,.0f} events/s")
    print("floor: fdatasync: beside each row, the mean of the medians just before and just after it\n")
    print(
        "| connections | events a message | events/s | CPU µs an event | ÷ floor | ack p50 ms | ack p99 ms | fdatasync µs | ack p50 ÷ fdatasync |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    rows = [("1", 1_000, events), ("8", 1_000, events), ("64", 1_000, events)]
    rows += [("1", 1, 2_000), ("1, unix socket", 1, 2_000), ("8", 1, 8_000), ("64", 1, 16_000)]
    for name, size, count in rows:
        number, _, unix = name.partition(", ")
        place = folder / f"f{number}-{size}{unix[:4]}"
        before, _ = fdatasync_seconds(folder)  # a disk that others use is twice as slow within minutes
        row = bench_forward(
            place,
            connections=int(number),
            size=size,
            events=count,
            unix_socket=place / "socket" if unix else None,
        )
        after, _ = fdatasync_seconds(folder)
        sync_p50 = (before + after) / 2
        print(
            f"| {name} | {size} | {row.events_a_second:,.0f} | {row.cpu_us:.1f} | {row.cpu_us / floor_us:.1f} |"
            f" {row.ack_p50 * 1e3:.2f} | {row.ack_p99 * 1e3:.2f} | {sync_p50 * 1e6:.0f} | {row.ack_p50 / sync_p50:.1f} |",
            flush=True,
        )
    before, _ = fdatasync_seconds(folder)
    answered = statistics.median(
        answering_seconds(folder, [single_message(at, chunk=f"one-{at}") for at in range(2_000)])
    )
    after, _ = fdatasync_seconds(folder)
    print(
        f"\nfloor of a single message: an asyncio server that writes it, syncs and answers: p50 {answered * 1e3:.2f} ms,"
        f" {2 * answered / (before + after):.1f} × fdatasync"
    )
    idle = idle_usage(folder / "idle")
    print(f"\nidle sidecar: {idle.resident_bytes / _MIB:.0f} MiB resident")


def _flood(folder: Path) -> None:
    print("One event at a time over Forward, beside connections that each keep eight chunks of 1,000 in flight:\n")
    print("| flooding connections | ack p50 ms | ack p99 ms | slowest ms | events/s of the flood |")
    print("|---:|---:|---:|---:|---:|")
    for connections in (0, 1, 8):
        row = bench_flood(folder / f"flood-{connections}", connections=connections, messages=200)
        times = f"{row.ack_p50 * 1e3:,.1f} | {row.ack_p99 * 1e3:,.1f} | {row.ack_most * 1e3:,.1f}"
        print(f"| {connections} | {times} | {row.flood_events_a_second:,.0f} |")


def _end_to_end(folder: Path, events: int) -> None:
    floor_us, floor_rate = minimal_loop(_made(folder / "floor-end"), events)
    row = bench_end_to_end(folder / "end", events=events)
    total_us = row.collector_us + row.correlator_us
    print("\n## Forward → proved trail\n")
    print(f"floor: decode, hash, insert: {floor_us:.1f} µs CPU an event, {floor_rate:,.0f} events/s\n")
    print("| events | events/s | ÷ floor | CPU µs an event | ÷ floor | of it sidecar | of it correlator |")
    print("|---|---|---|---|---|---|---|")
    print(
        f"| {row.events:,} | {row.events_a_second:,.0f} | {row.events_a_second / floor_rate:.2f} | {total_us:.1f} |"
        f" {total_us / floor_us:.1f} | {row.collector_us:.1f} | {row.correlator_us:.1f} |"
    )
    print(
        f"\nbytes on disk an event: store {row.store_bytes:.0f}, log {row.log_bytes:.0f}, index {row.index_bytes:.0f};"
        f" peak memory: sidecar {row.collector_peak_bytes / _MIB:.0f} MiB,"
        f" correlator {row.correlator_peak_bytes / _MIB:.0f} MiB"
    )


def _import(folder: Path, events: int) -> None:
    floor_us, floor_rate = minimal_loop(_made(folder / "floor-import"), events)
    row = bench_import(_made(folder / "import"), events=events)
    print("\n## File → proved trail (`tally import`)\n")
    print(f"floor: decode, hash, insert: {floor_us:.1f} µs CPU an event, {floor_rate:,.0f} events/s\n")
    print("| events | events/s | ÷ floor | CPU µs an event | ÷ floor | peak MiB |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {events:,} | {row.events_a_second:,.0f} | {row.events_a_second / floor_rate:.2f} | {row.cpu_us:.1f} |"
        f" {row.cpu_us / floor_us:.1f} | {row.peak_bytes / _MIB:.0f} |",
        flush=True,
    )


def _trail(folder: Path, stored: int, requests: int) -> None:
    row = bench_trail_fetch(folder / "trail", events=stored, requests=requests)
    print("\n## One trail with its events and proofs, over the API\n")
    print("| events stored | requests | p50 ms | p99 ms | kB an answer |")
    print("|---|---|---|---|---|")
    print(
        f"| {row.events:,} | {row.requests:,} | {row.p50 * 1e3:.1f} | {row.p99 * 1e3:.1f} | {row.answer_bytes / 1e3:.0f} |"
    )
    print(
        f"\npeak memory after {row.events:,} events: sidecar {row.collector.peak_bytes / _MIB:.0f} MiB, correlator"
        f" {row.correlator.peak_bytes / _MIB:.0f} MiB, API {row.api.peak_bytes / _MIB:.0f} MiB"
    )


def _export(folder: Path, stored: int) -> None:
    floor_us, _ = minimal_loop(_made(folder / "floor-export"), min(stored, 100_000))
    print("\n## A whole ledger as data (`tally export --format`)\n")
    print(f"floor: decode, hash, insert: {floor_us:.1f} µs CPU an event\n")
    print("| format | events | rows | events/s | CPU µs an event | ÷ floor | peak MiB | bytes an event |")
    print("|---|---|---|---|---|---|---|---|")
    for row in bench_export(_made(folder / "export"), events=stored):
        cpu_us = row.cpu_seconds / row.events * 1e6
        print(
            f"| {row.form} | {row.events:,} | {row.rows:,} | {row.events / row.wall_seconds:,.0f} | {cpu_us:.1f} |"
            f" {cpu_us / floor_us:.1f} | {row.peak_bytes / _MIB:.0f} | {row.file_bytes / row.events:.0f} |",
            flush=True,
        )


def _auditors(folder: Path, arguments: argparse.Namespace) -> None:
    alone, beside = bench_auditors(
        folder / "auditors",
        events=arguments.stored,
        auditors=arguments.auditors,
        think_seconds=arguments.think,
        seconds=arguments.seconds,
    )
    print(
        f"\n## {arguments.auditors} auditors at once, {arguments.stored:,} events stored\n\n"
        f"Each asks, and thinks for {arguments.think:g} s on average. Each phase counts {arguments.seconds:g} s.\n"
    )
    print("| route | requests | p50 ms | p99 ms | with an export: requests | p50 ms | p99 ms | p50 × | p99 × |")
    print("|---|---|---|---|---|---|---|---|---|")
    for one, other in zip(alone.routes, beside.routes, strict=True):
        times = [f"{row.requests:,} | {row.p50 * 1e3:.1f} | {row.p99 * 1e3:.1f}" for row in (one, other)]
        print(
            f"| {one.name} | {' | '.join(times)} | {other.p50 / max(one.p50, 1e-9):.2f} | {other.p99 / max(one.p99, 1e-9):.2f} |"
        )
    print()
    _phase("alone", alone)
    _phase("with an export", beside)


def _phase(name: str, phase: Phase) -> None:
    exported = f"; {phase.exported:,} rows exported meanwhile" if phase.exported else ""
    print(
        f"{name}: {phase.requests / phase.seconds:.0f} requests/s, {phase.errors} errors; the API used {phase.cpu_share:.2f} of a core,"
        f" peak memory {phase.peak_bytes / _MIB:.0f} MiB{exported}",
        flush=True,
    )


def _open_trails(folder: Path, trails: int) -> None:
    half, end, cpu_us = bench_open_trails(folder / "open", trails=trails)
    print(f"\n## Open trails\n\n{trails:,} transactions of one event each, the correlator:\n")
    print("| at | resident MiB | of it no file's pages | peak MiB |")
    print("|---|---|---|---|")
    for name, usage in (("half", half), ("all", end)):
        sizes = (usage.resident_bytes, usage.anonymous_bytes, usage.peak_bytes)
        print(f"| {name} | {' | '.join(f'{size / _MIB:.0f}' for size in sizes)} |")
    print(f"\n{cpu_us:.1f} µs CPU an event over the second half")


def _verify(folder: Path, leaves: int) -> None:
    row = bench_verification(folder / "verify", leaves=leaves)
    print("\n## Leaves a second, one process\n")
    print("| leaves | leaf hashes and tree | entries and their chain | durable publish | whole check |")
    print("|---|---|---|---|---|")
    print(f"| {row.leaves:,} | {row.tree:,.0f} | {row.chain:,.0f} | {row.publish:,.0f} | {row.check:,.0f} |")


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


if __name__ == "__main__":
    main()
