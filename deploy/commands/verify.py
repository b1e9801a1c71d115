"""`tally verify`: is this bundle, this proof, this log true?"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.session import EXIT_FALSE, EXIT_UNKNOWN, Failure, emit_json, json_option, show, stop
from deploy.wording import count, in_words

if TYPE_CHECKING:
    from collections.abc import Callable

    from correlator.checkpoint import Checkpoint
    from correlator.note import Verifier
    from correlator.proof import ConsistencyProof
    from correlator.statement import Statement
    from correlator.storage import LogStorage
    from correlator.verify import Report
    from deploy.checking.logs import LogsReport


@click.command()
@click.argument("source", metavar="FILE|URL")
@click.option("--key", metavar="KEY|FILE", help="The log's public key (.vkey), from a source that you trust.")
@click.option(
    "--since",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A signed checkpoint of the log, or a joint statement, remembered from before.",
)
@click.option(
    "--consistency",
    metavar="FILE|URL",
    help="With --since, for a bundle or a .tlog-proof of another size: what an audit API answers to /v1/consistency.",
)
@json_option
def verify(*, source: str, key: str | None, since: Path | None, consistency: str | None, as_json: bool) -> None:
    """Verify a bundle, a .tlog-proof, or a whole log (its folder, or its s3://, gs:// or az:// URL) against the log's public key.

    A copy of what is published of a log is a log, too. Of a ledger that is cut into shards also the joint statement, or the logs below it
    (the folder that its statement is in), or one. The key is the ledger's. Another URL is fetched first (the bearer token of $TALLY_TOKEN goes along to the host of $TALLY_API over https, and to this machine). Exit code 0: true. 1: false; the first
    thing that does not hold is named. 2: could not tell, because it could not be read, a trail's beginning or a log that the joint statement covers is missing, nothing shows how its log and the one that --since remembers go together, or no key was given: then the key
    that the bundle states is shown, for you to compare.
    """
    from collector.errors import NotFound, Overloaded, StateUnknown, VerificationError
    from correlator.statement import is_statement
    from correlator.storage.file import FileStorage
    from deploy.keys import read_verifier
    from deploy.logstorage import is_object_url, storage_at

    verifier = read_verifier(key) if key else None
    if consistency and since is None:
        raise click.UsageError("--consistency goes with --since: it is the proof between that checkpoint and this one")
    remembered = _remembered(since, verifier) if since else None
    try:
        if is_object_url(source):
            _goes_without(consistency)
            _log(lambda below: storage_at(_joined(source, below)), verifier, remembered, as_json=as_json)
        if Path(source).is_dir():
            _goes_without(consistency)
            _log(lambda below: FileStorage(Path(source) / below), verifier, remembered, as_json=as_json)
        data = _read(source)
        if is_statement(data):
            _goes_without(consistency)
            _statement(data, verifier, remembered, as_json=as_json)
        between = _between(consistency) if consistency else None
        if data.startswith(b"c2sp.org/tlog-proof"):
            _proof(data, verifier, remembered, between, as_json=as_json)
        _bundle(data, verifier, remembered, between, as_json=as_json)
    except VerificationError as error:
        if as_json:
            emit_json({"verdict": "false", "problem": str(error)})
        else:
            show(f"FALSE: {error}")
        stop(EXIT_FALSE)
    except (Overloaded, StateUnknown, NotFound, OSError) as error:
        raise Failure(f"could not tell: {in_words(error)}", exit_code=EXIT_UNKNOWN) from error


def _read(source: str) -> bytes:
    from deploy.fetch import MAX_BYTES, fetch

    if source.startswith(("http://", "https://")):
        return fetch(source, api=os.environ.get("TALLY_API", ""))
    with Path(source).open("rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise OSError(f"{source}: longer than {MAX_BYTES:,} bytes")
    return data


def _joined(url: str, below: str) -> str:
    return f"{url.rstrip('/')}/{below}" if below else url


def _goes_without(consistency: str | None) -> None:
    """Of a log everything is read, and a joint statement is of several logs: one proof says nothing there."""
    if consistency:
        raise click.UsageError("--consistency goes with a bundle or a .tlog-proof alone")


def _remembered(path: Path, verifier: "Verifier | None") -> "Checkpoint | Statement":
    """What `--since` names; that it cannot be read, or is none of this log's, says nothing against what is verified."""
    from collector.errors import VerificationError
    from correlator.checkpoint import Checkpoint
    from correlator.statement import is_statement
    from deploy.remembered import open_remembered

    try:
        signed = path.read_bytes()
        if verifier is not None:
            return open_remembered(signed, verifier)
        if not is_statement(signed):
            return Checkpoint.parse(signed[: signed.rfind(b"\n\n") + 1])
    except (VerificationError, OSError) as error:
        raise Failure(f"could not tell: --since {path}: {error}", exit_code=EXIT_UNKNOWN) from error
    raise Failure("could not tell: a joint statement names no key; give it with --key", exit_code=EXIT_UNKNOWN)


def _between(source: str) -> "ConsistencyProof":
    """A consistency proof; one that cannot be read says nothing against what is verified."""
    from collector.errors import VerificationError
    from correlator.proof import read_consistency

    try:
        return read_consistency(_read(source))
    except VerificationError as error:
        raise Failure(f"could not tell: {source}: {error}", exit_code=EXIT_UNKNOWN) from error


def _statement(
    data: bytes, verifier: "Verifier | None", remembered: "Checkpoint | Statement | None", *, as_json: bool
) -> None:
    """Verify a joint statement by itself: that the ledger's key signed it, and that it does not contradict what is remembered.

    That trees of other sizes continue the remembered ones only the logs show.
    """
    from correlator.statement import Statement, open_statement

    if verifier is None:
        raise Failure("could not tell: a joint statement names no key; give it with --key", exit_code=EXIT_UNKNOWN)
    statement = open_statement(data, verifier)
    if isinstance(remembered, Statement):
        statement.check_follows(remembered)
    elif remembered is not None:
        statement.check_covers(remembered)
    before = remembered.trees if isinstance(remembered, Statement) else (remembered,) if remembered else ()
    grown = [tree.origin for tree in statement.trees if any(_has_grown(tree, one) for one in before)]
    doubts = [f"nothing in it shows that {', '.join(grown)} continue what is remembered"] if grown else []
    if as_json:
        trees = [{"origin": tree.origin, "size": tree.size, "root": tree.root.hex()} for tree in statement.trees]
        verdict = "unknown" if doubts else "true"
        emit_json({"verdict": verdict, "doubts": doubts, "ledger": statement.ledger, "shards": trees})
    else:
        verdict = f"COULD NOT TELL: {doubts[0]}: verify the logs with --since, but" if doubts else "TRUE:"
        show(f"{verdict} the ledger {statement.ledger} signed the trees of its {statement.count} shards")
        for tree in statement.trees:
            show(f"{tree.origin}  {count(tree.size, 'leaf', 'leaves')}, root {tree.root.hex()}")
    stop(EXIT_UNKNOWN if doubts else 0)


def _has_grown(tree: "Checkpoint", before: "Checkpoint") -> bool:
    return tree.origin == before.origin and tree.size > before.size > 0


def _of_log(remembered: "Checkpoint | Statement | None", origin_of: "Callable[[], str]") -> "Checkpoint | None":
    """Of a remembered statement its tree of the log in question; any other, of another ledger, is refused later."""
    from correlator.statement import Statement

    if not isinstance(remembered, Statement):
        return remembered
    origin = origin_of()
    return next((tree for tree in remembered.trees if tree.origin == origin), remembered.trees[0])


def _since(consistency: str, remembered: "Checkpoint", checkpoint: "Checkpoint") -> str:
    """How the two relate, and, where that is left open, which proof would show it."""
    from correlator.shards import split_origin

    if consistency != "not shown":
        return consistency
    first, second = sorted((remembered.size, checkpoint.size))
    shard = split_origin(checkpoint.origin)[1]
    asked = f"first={first}&second={second}" + (f"&shard={shard.number}" if shard.count > 1 else "")
    return f"{consistency}; the proof is what an audit API answers to /v1/consistency?{asked} (--consistency)"


def _bundle(
    data: bytes,
    verifier: "Verifier | None",
    since: "Checkpoint | Statement | None",
    consistency: "ConsistencyProof | None",
    *,
    as_json: bool,
) -> None:
    from correlator.verify import verify_bundle

    remembered = _of_log(since, lambda: verify_bundle(data, verifier).checkpoint.origin)
    report = verify_bundle(data, verifier, remembered=remembered, consistency=consistency)
    if as_json:
        emit_json({"verdict": "unknown" if report.doubts else "true", **_plain(report)})
    else:
        for line in _told(report):
            show(line)
        if remembered is not None:
            show(f"since     the remembered checkpoint: {_since(report.consistency, remembered, report.checkpoint)}")
    stop(report.exit_code)


def _told(report: "Report") -> list[str]:
    trails = ", ".join(
        f"{one.trail} ({count(one.entries, 'entry', 'entries')}{_from(one.first)})" for one in report.trails
    )
    return [
        f"COULD NOT TELL: what is in the bundle fits together, but {'; '.join(report.doubts)}"
        if report.doubts
        else "TRUE: every entry is in the signed log, every chain and every event's signature holds",
        f"trails    {trails}",
        f"events    {report.events}, signed by {count(len(report.streams), 'collector stream')}"
        + (f"; {report.withheld - report.retired} withheld" if report.withheld > report.retired else "")
        + (f"; {report.retired} retired by policy" if report.retired else ""),
        f"recorded  {report.recorded[0]} to {report.recorded[1]}",
        f"log       {report.ledger}, {count(report.checkpoint.size, 'leaf', 'leaves')}, root {report.checkpoint.root.hex()}",
        f"key       {report.key.vkey}",
        f"          fingerprint {report.key.fingerprint}"
        + ("" if report.trusted else "  <- compare this with the log's"),
    ]


def _from(first: int) -> str:
    """What is not there of a trail that begins in the bundle at this position."""
    return f" from position {first} on: {count(first, 'entry', 'entries')} before it left out" if first else ""


def _plain(report: "Report") -> dict[str, Any]:
    return {
        "doubts": report.doubts,
        "ledger": report.ledger,
        "key": report.key.vkey,
        "fingerprint": report.key.fingerprint,
        "size": report.checkpoint.size,
        "root": report.checkpoint.root.hex(),
        "trails": report.trails,
        "events": report.events,
        "withheld": report.withheld,
        "retired": report.retired,
        "streams": report.streams,
        "recorded": report.recorded,
        "consistency": report.consistency,
    }


def _proof(
    data: bytes,
    verifier: "Verifier | None",
    since: "Checkpoint | Statement | None",
    consistency: "ConsistencyProof | None",
    *,
    as_json: bool,
) -> None:
    from correlator.verify import verify_proof

    if verifier is None:
        raise Failure("could not tell: a .tlog-proof names no key; give the log's with --key", exit_code=EXIT_UNKNOWN)
    remembered = _of_log(since, lambda: verify_proof(data, verifier).checkpoint.origin)
    report = verify_proof(data, verifier, remembered=remembered, consistency=consistency)
    if as_json:
        emit_json(
            {
                "verdict": "unknown" if report.doubts else "true",
                "doubts": report.doubts,
                "leaf": report.leaf,
                "size": report.checkpoint.size,
                "entry": report.entry,
                "consistency": report.consistency,
            }
        )
    else:
        entry = report.entry
        verdict = f"COULD NOT TELL: {'; '.join(report.doubts)}, but" if report.doubts else "TRUE:"
        where = f"leaf {report.leaf} of the log {report.checkpoint.origin}"
        show(f"{verdict} {where} is position {entry.position} of {entry.trail}")
        if remembered is not None:
            show(f"since     the remembered checkpoint: {_since(report.consistency, remembered, report.checkpoint)}")
    stop(EXIT_UNKNOWN if report.doubts else 0)


def _log(
    storage_of: "Callable[[str], LogStorage]",
    verifier: "Verifier | None",
    remembered: "Checkpoint | Statement | None",
    *,
    as_json: bool,
) -> None:
    """Verify a log, or all shards' logs where a joint statement stands in its place; `storage_of` gives what is below it."""
    from deploy.checking.logs import verify_logs
    from deploy.progress import progress

    if verifier is None:
        raise Failure("could not tell: a log names no key; give it with --key", exit_code=EXIT_UNKNOWN)
    with progress("checking the log", unit="leaves", quiet=as_json) as report:
        found = verify_logs(storage_of, verifier, since=remembered, progress=report)
    verdict = "false" if found.findings else "unknown" if found.doubts else "true"
    if as_json:
        emit_json({"verdict": verdict, "findings": found.findings, "doubts": found.doubts})
    else:
        for finding in found.findings:
            show(f"FALSE: {finding}")
        if not found.findings:
            show(_logs_told(found))
    stop({"false": EXIT_FALSE, "unknown": EXIT_UNKNOWN, "true": 0}[verdict])


def _logs_told(found: "LogsReport") -> str:
    """What to say of logs in which nothing is false."""
    parts = ["the joint statement holds"] if found.stated else []
    if found.origins:
        parts.append(f"every leaf and tile of {', '.join(found.origins)} leads to the signed root")
    told = ", and ".join(parts)
    if not found.doubts:
        return f"TRUE: {told}"
    return f"COULD NOT TELL: {'; '.join(found.doubts)}{', but ' if told else ''}{told}"
