"""`tally siem verify`: a SIEM's copy and the log, and what shows when one of them was changed."""

from __future__ import annotations

import json
import re
from contextlib import ExitStack
from pathlib import Path

import pytest

from audit_api.metrics import SiemMetrics
from audit_api.siem.cursor import Cursor
from audit_api.siem.settings import HttpSettings
from audit_api.siem.stream import Stream
from collector.retry import Breaker, RetryLimits
from deploy.api import open_logs
from tests.deploy.conftest import Cli, Workshop
from tests.support.siems import MemoryDestination


def copied(ledger: Workshop, form: str, **more: object) -> list[bytes]:
    """What a SIEM holds of this ledger."""
    settings = HttpSettings(name="copy", url="https://siem.example/", format=form, **more)  # type: ignore[arg-type]  # one of its formats
    destination = MemoryDestination()
    with ExitStack() as stack:
        logs = open_logs(ledger.config, ledger.places, stack)
        assert logs is not None
        stream = Stream(
            settings,
            logs=logs.all,
            destination=destination,
            cursor=Cursor(ledger.folder / f"{form}.json"),
            metrics=SiemMetrics(),
            pauses=Breaker(RetryLimits(), uniform=lambda least, _: least),
            clock=lambda: 0,
        )
        while stream.step()[0]:
            pass
    return destination.got


@pytest.mark.parametrize("form", ["json", "ecs", "ocsf"])
@pytest.mark.parametrize("around", [b"%b", b'{"_index":"x","_source":%b}', b'{"preview":false,"result":{"event":%b}}'])
def test_a_copy_that_is_true(ledger: Workshop, cli: Cli, tmp_path: Path, form: str, around: bytes) -> None:
    records = copied(ledger, form)
    file = tmp_path / "copy.ndjson"
    file.write_bytes(b"\n".join(around % one for one in records) + b"\n\n")
    also = "" if form == "json" else f"; of {len(records)}, in ECS or OCSF, no other field was compared"
    assert cli("siem", "verify", str(file))[:2] == (
        0,
        f"TRUE: {len(records)} records name entries that stand in the log{also}\n",
    )
    code, out, _ = cli("siem", "verify", str(file), "--json")
    compared = len(records) if form == "json" else 0
    assert (code, json.loads(out)) == (0, {"verdict": "true", "verified": len(records), "compared": compared})


@pytest.mark.parametrize(
    "case",
    [
        (b'"body":"paid p1"', b'"body":"paid p7"', "its event is not the one in the log"),
        (b'"trail":"transaction/p1"', b'"trail":"transaction/p7"', "its entry is not the one in the log"),
        (rb'"leaf":3,', b'"leaf":4,', "is not the id of what stands at leaf 4"),
        (rb'#3","leaf":3,', b'#4","leaf":4,', "the log has another entry at leaf 4"),
        (rb'"leaf":3,', b'"leaf":3000,', "and there are"),
        (rb'"root":"....', b'"root":"AAAA', "are not those it was sent under"),
        (rb'"id":"test.example/audit#3"', b'"id":"test.example/audit#4"', "is not the id of what stands at leaf 3"),
        (rb'"entry":\{[^\n]*?\},"event":\{', b'"event":{', "the entry that names it was taken out"),
        (
            rb'"event":\{[^\n]*\},"checkpoint":',
            b'"event":null,"checkpoint":',
            "its event was taken out, and nothing in it says why",
        ),
        (rb'"log":"test.example/audit"', b'"log":"other.example/audit"', "none of this ledger's"),
    ],
)
def test_what_was_changed_is_named(ledger: Workshop, cli: Cli, tmp_path: Path, case: tuple[bytes, bytes, str]) -> None:
    was, now, said = case
    data = b"\n".join(copied(ledger, "json"))
    changed = re.sub(was, now, data, count=1)
    assert changed != data
    (tmp_path / "copy.ndjson").write_bytes(changed)
    code, out, _ = cli("siem", "verify", str(tmp_path / "copy.ndjson"))
    assert code == 1
    assert out.startswith("FALSE: ")
    assert said in out


@pytest.mark.parametrize("text", ["", "{}", "no JSON", '{"id":1,"leaf_hash":"x","checkpoint":{}}', "[" * 5_000])
@pytest.mark.usefixtures("ledger")
def test_what_is_no_copy(cli: Cli, tmp_path: Path, text: str) -> None:
    (tmp_path / "copy.ndjson").write_text(text + "\n")
    code, _, err = cli("siem", "verify", str(tmp_path / "copy.ndjson"))
    assert code == 2
    assert "no record" in err
