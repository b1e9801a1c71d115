"""`tally map`: mappings tried on a file."""

from collections import Counter
from contextlib import closing
from itertools import islice
from pathlib import Path

import click
import msgspec

from deploy.session import EXIT_FALSE, Failure, Session, emit_json, json_option, pass_session, show, stop


@click.command("map")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--mapping",
    "mappings",
    multiple=True,
    metavar="FILE|preset:NAME",
    help="A file of mappings, or one that comes with Tallystick; several times for several (default: `collector.mappings`).",
)
@click.option(
    "--receiver", default="tail", show_default=True, help="The way in that the lines are said to have come by."
)
@click.option("--tag", default="", help="The Forward tag that they are said to have.")
@click.option("--limit", type=click.IntRange(1, 1_000_000), default=10, show_default=True, help="Most lines to try.")
@json_option
@pass_session
def map_file(
    session: Session, *, file: Path, mappings: tuple[str, ...], receiver: str, tag: str, limit: int, as_json: bool
) -> None:
    """Try mappings on the lines of FILE (plain or gzip): the event that each would become, masked, and its trail. Nothing is kept.

    A line that is a JSON object is a record, any other one a record with the line as its `message`. Exit code 1: no mapping was for some
    line, a value did not fit, or a line would be a dead letter.
    """
    from collector.errors import Malformed
    from collector.event import Origin
    from collector.importer.source import Source, lines
    from collector.mapping.language import load_mappings
    from collector.mapping.mapper import Mapper
    from deploy.trying import try_lines

    names = mappings or session.config.collector.mappings
    if not names:
        raise Failure("no mapping: give --mapping, or set collector.mappings; try --mapping preset:nginx", exit_code=2)
    try:
        mapper = Mapper(load_mappings(names))
        origin = Origin(receiver=receiver, tag=tag, file=file.name)
        with closing(Source(file).open()) as stream:
            tried = list(try_lines(islice(lines(stream), limit), mapper, session.config, origin))
    except Malformed as error:
        raise Failure(str(error), exit_code=2) from error
    except OSError as error:
        raise Failure(f"{error.filename or file}: {error.strerror or error}", exit_code=2) from error
    if as_json:
        emit_json(tried)
    else:
        for one in tried:
            head = f"line {one.line}: " + (f"mapping {one.mapping}" if one.mapping else "no mapping is for it")
            show(head + (f", does not fit: {', '.join(one.unmapped)}" if one.unmapped else ""))
            if one.refused:
                show(f"  a dead letter: {one.refused}")
                continue
            for line in msgspec.json.format(msgspec.json.encode(one.event), indent=2).decode().splitlines():
                show(f"  {line}")
            show(f"  → {one.trail}" + (f"  ({one.why})" if one.why != "stream" else ""))
        counts = Counter(one.mapping or "none" for one in tried)
        show(f"{len(tried)} lines: " + ", ".join(f"{name} {count}" for name, count in counts.most_common()))
    if not tried or any(one.refused or one.unmapped or not one.mapping for one in tried):
        stop(EXIT_FALSE)
