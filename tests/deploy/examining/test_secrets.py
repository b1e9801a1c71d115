"""Keys, passwords and tokens: what is wrong is told, the suggested command mends it, and no secret is ever shown."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from audit_api.auth import TokenRecord, hash_token, render_tokens
from collector.event import format_time
from correlator.note import Signer
from deploy.examining.secrets import examine_secrets
from deploy.places import Places
from tests.support.charts import only, outcomes, troubles

if TYPE_CHECKING:
    from tests.deploy.conftest import Workshop

NOW_NS = 1_767_225_600_000_000_000
DAY_NS = 86_400 * 10**9


def test_a_ledgers_own_are_fine(ledger: Workshop) -> None:
    chart = examine_secrets(ledger.config, ledger.places)
    assert troubles(chart) == []
    assert {"folder", "log.key", "others", "tokens"} <= outcomes(chart).keys()


def test_before_the_first_start_there_is_nothing_to_mend(workshop: Workshop) -> None:
    assert troubles(examine_secrets(workshop.config, workshop.places)) == []


Breaking = Callable[[Places], object]
BREAKINGS: dict[str, tuple[Breaking, str]] = {
    "log.key open": (lambda places: places.log_key.chmod(0o644), "log.key"),
    "cards.key open": (lambda places: (places.keys / "cards.key").chmod(0o640), "cards.key"),
    "folder open": (lambda places: places.keys.chmod(0o755), "folder"),
    "another public half": (
        lambda places: places.log_vkey.write_text(Signer.generate("test.example/audit").verifier.vkey),
        "log.vkey",
    ),
    "no public half": (lambda places: places.log_vkey.unlink(), "log.vkey"),
}


@pytest.mark.parametrize("what", BREAKINGS)
def test_what_is_wrong_is_told_and_the_command_mends_it(ledger: Workshop, what: str) -> None:
    breaking, name = BREAKINGS[what]
    breaking(ledger.places)
    check = only(examine_secrets(ledger.config, ledger.places))
    assert check.name == name
    command = check.mend[0].rpartition("For the private key's: ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert troubles(examine_secrets(ledger.config, ledger.places)) == []


@pytest.mark.parametrize("name", ["log.key", "cards.key", "collector-collector.key"])
def test_a_damaged_key_is_told_without_a_word_of_it(ledger: Workshop, name: str) -> None:
    path = ledger.places.keys / name
    secret = path.read_text()
    path.write_text(secret[: len(secret) // 2])
    chart = examine_secrets(ledger.config, ledger.places)
    assert only(chart).name == name
    told = msgspec.json.encode(chart.checks).decode()
    assert secret[-30:-10] not in told


def test_a_damaged_key_comes_from_its_copy_alone(ledger: Workshop) -> None:
    ledger.places.log_key.write_text("PRIVATE+KEY+")
    assert only(examine_secrets(ledger.config, ledger.places)).mend == ("bring the key back from its copy",)


def test_a_log_without_its_key_is_told(ledger: Workshop) -> None:
    ledger.places.log_key.unlink()
    assert outcomes(examine_secrets(ledger.config, ledger.places))["log.key"] == "ok", (
        "a reader has the public half alone"
    )
    ledger.places.log_vkey.unlink()
    assert outcomes(examine_secrets(ledger.config, ledger.places))["log.key"] == "failed"


def test_the_key_of_another_ledger_is_told(ledger: Workshop) -> None:
    config = msgspec.structs.replace(ledger.config, ledger="other.example/audit")
    assert only(examine_secrets(config, ledger.places)).name == "log.key"


def token(name: str, *, days: int | None) -> TokenRecord:
    expires = "" if days is None else format_time(NOW_NS + days * DAY_NS)
    return TokenRecord(principal=name, roles=["auditor"], sha256=hash_token(name), expires=expires)


@pytest.mark.parametrize(
    ("days", "mode", "outcome"),
    [
        ((None,), 0o600, "ok"),
        ((30, -1), 0o600, "ok"),
        ((3, None), 0o600, "warning"),
        ((-1, -2), 0o600, "warning"),
        ((None,), 0o666, "failed"),
    ],
)
def test_tokens(workshop: Workshop, days: tuple[int | None, ...], mode: int, outcome: str) -> None:
    workshop.places.make()
    path = workshop.places.tokens
    path.write_text(render_tokens([token(f"ann{at}", days=one) for at, one in enumerate(days)]))
    path.chmod(mode)
    chart = examine_secrets(workshop.config, workshop.places, now_ns=NOW_NS)
    assert outcomes(chart)["tokens"] == outcome
    troubles(chart)


def test_a_file_of_tokens_that_is_none_is_told(workshop: Workshop) -> None:
    workshop.places.make()
    workshop.places.tokens.write_text("tokens = 3")
    assert only(examine_secrets(workshop.config, workshop.places)).name == "tokens"


@pytest.mark.parametrize(
    ("state", "outcome"), [("open", "warning"), ("empty", "failed"), ("missing", "failed"), ("closed", "ok")]
)
def test_the_file_of_a_password(workshop: Workshop, tmp_path: Path, state: str, outcome: str) -> None:
    file = tmp_path / "password"
    if state != "missing":
        file.write_text("" if state == "empty" else "s3cr3t-word\n")
        file.chmod(0o644 if state == "open" else 0o600)
    store = '[store]\nurls = ["https://search.example:9200"]\nuser = "u"\npassword_file = "password"\n'
    workshop.file.write_text(workshop.file.read_text() + store)
    chart = examine_secrets(workshop.config, workshop.places)
    assert outcomes(chart)["store.password_file"] == outcome
    assert "s3cr3t" not in msgspec.json.encode(chart.checks).decode()


_TLS = 'tls_certificate = "c"\ntls_key = "secret"\n'


@pytest.mark.parametrize(
    ("table", "settings", "key"),
    [
        ("[[collector.kafka]]", f'brokers = ["b:1"]\ntopics = ["t"]\ntls = true\n{_TLS}', "tls_key"),
        (
            "[[collector.kafka]]",
            'brokers = ["b:1"]\ntopics = ["t"]\nsasl = "SCRAM-SHA-512"\nuser = "u"\npassword_file = "secret"\n',
            "password_file",
        ),
        ("[[collector.amqp]]", 'queue = "q"\npassword_file = "secret"\n', "password_file"),
        (
            "[[collector.pulsar]]",
            'brokers = ["b:1"]\ntopics = ["t"]\ntls = true\ntoken_file = "secret"\n',
            "token_file",
        ),
        ("[collector.grpc]", _TLS, "tls_key"),
        ("[collector.beats]", _TLS, "tls_key"),
        ("[collector.relay]", 'host = "x"\nshared_key_file = "secret"\n', "shared_key_file"),
    ],
)
def test_the_secrets_of_every_way_are_looked_at(
    workshop: Workshop, tmp_path: Path, table: str, settings: str, key: str
) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cr3t-word\n")
    file.chmod(0o644)
    workshop.file.write_text(f"{workshop.file.read_text()}{table}\n{settings}")
    chart = examine_secrets(workshop.config, workshop.places)
    assert outcomes(chart)[f"{table.strip('[]')}.{key}"] == "warning"
