"""The reference says every key, and what it says is so."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import msgspec
import pytest

from deploy.config import Config, parse
from deploy.reference import Key, Table, markdown, tables, toml, toml_value


def keys() -> list[tuple[Table, Key]]:
    return [(table, key) for table in tables() for key in table.keys]


def test_the_page_is_what_the_settings_say(repo_root: Path) -> None:
    page = repo_root / "docs" / "configuration.md"
    assert page.read_text(encoding="utf-8") == markdown(), (
        "make it anew: tally config --markdown > docs/configuration.md"
    )


def test_the_commands_page_is_what_help_says(repo_root: Path) -> None:
    from deploy.cli import COMMANDS, tally
    from deploy.manual import markdown as commands

    page = (repo_root / "docs" / "commands.md").read_text(encoding="utf-8")
    assert page == commands(tally), "make it anew: tally config --commands > docs/commands.md"
    assert [name for name in COMMANDS if f"\n## tally {name}\n" not in page] == []


def test_every_key_has_its_meaning() -> None:
    assert len(keys()) > 40
    silent = [f"{table.header} {key.name}" for table, key in keys() if not key.text and not table.text]
    assert silent == []


def test_every_table_has_its_meaning() -> None:
    assert [table.header for table in tables() if table.header and not table.text] == []


def test_the_commented_file_says_nothing() -> None:
    assert parse(toml(), source="", folder=Path("/x")) == parse("", source="", folder=Path("/x"))


def test_the_commented_file_with_every_default_said_is_the_default() -> None:
    """Each `#key = value` line made active, one table at a time, changes nothing."""
    text = re.sub(r"^#(?=\w+ = )", "", toml(), flags=re.MULTILINE)
    repeated = {table.header for table in tables() if table.repeated}
    kept, skip = [], False
    for line in text.splitlines():
        if line.lstrip("#").startswith("["):
            skip = line.lstrip("#") in repeated
        if not skip and " = …" not in line:
            kept.append(line)
    said = "\n".join(kept)
    assert said.count(" = ") > 40
    assert parse(said, source="", folder=Path("/x")) == parse("", source="", folder=Path("/x"))


@pytest.mark.parametrize(
    "value",
    [True, 0, -5, 67_108_864, 0.25, "", 'a "b" \\ \n \x7f ü', [], ["a", "b"], {"a": {"b c": [1]}}, [{"x": 1.5}]],
)
def test_a_value_reads_back_the_same(value: object) -> None:
    assert tomllib.loads(f"x = {toml_value(value)}")["x"] == value


def test_units_are_in_the_names() -> None:
    """A number that is a size or a time says so in its name."""
    bare = {
        "port", "tls_port", "udp_port", "batch_events", "batch_messages", "prefetch", "journal_ids", "hub_links", "step_entries", "streams_a_step", "silent_heartbeats", "hot_trails",
        "metrics_port", "page_trails", "page_entries", "export_entries", "export_rows", "export_rows_a_day", "export_jobs", "requests_a_second", "burst_requests", "anonymous_refusals_a_minute",
        "recorder_threads", "live_readers", "saved_searches", "shards", "replicas", "copies", "minor_digits", "count", "margin", "most", "kmh", "least_km", "hops", "share", "budget", "learn_payments",
        "known_payments", "window_payments", "trees", "height", "seed", "max_connections", "max_open_files", "max_services", "max_operations", "exports_an_hour", "burst_exports", "objective",
        "latency_objective", "least_requests", "incomplete_share", "incomplete_least", "dead_letters", "reads_least", "reads_factor", "refusals", "batch_records", "facility", "enterprise_number", "max_series", "max_series_of_service", "shared_percent",
    }  # fmt: skip
    numbers = [key.name for _, key in keys() if re.match("integer|number", key.kind)]
    assert [
        name for name in numbers if name not in bare and not name.endswith(("_seconds", "_bytes", "_months", "_hours"))
    ] == []


def test_every_setting_is_a_struct_that_refuses_unknown_keys() -> None:
    def walk(kind: msgspec.inspect.Type) -> list[str]:
        if isinstance(kind, msgspec.inspect.StructType):
            inside = [finding for field in kind.fields for finding in walk(field.type)]
            return inside + ([] if kind.forbid_unknown_fields else [kind.cls.__name__])
        parts = [getattr(kind, name, None) for name in ("item_type", "value_type")]
        return [finding for part in parts if part is not None for finding in walk(part)]

    assert walk(msgspec.inspect.type_info(Config)) == []
