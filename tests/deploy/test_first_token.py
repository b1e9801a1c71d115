"""The token of the first start: made once, kept from everybody else, and told in no log and no address."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import httpx
import msgspec
import pytest

from audit_api.auth import hash_token
from deploy.examining.secrets import examine_secrets
from deploy.firsttoken import OWNER, make_first_token, wants_first_token
from deploy.tokens import change_tokens, read_tokens
from tests.deploy.test_several_apis import api_process
from tests.support.charts import only, troubles

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


def test_the_first_start_makes_one_that_opens_the_api(ledger: Workshop, cli: Cli) -> None:
    with api_process(ledger, "--port", "0") as url:
        token = ledger.places.first_token.read_text().strip()
        answer = httpx.get(f"{url}/v1/principals", headers={"Authorization": f"Bearer {token}"}, timeout=60)
        assert [one["principal"] for one in answer.json()["principals"]] == [OWNER]
        found = cli("find", "--api", url, "--token-file", str(ledger.places.first_token))
        assert found[0] == 0, found
    assert oct(ledger.places.first_token.stat().st_mode)[-3:] == "600"
    log = (ledger.folder / "api.log").read_text()
    assert str(ledger.places.first_token) in log
    assert token not in log
    everything = [path for path in ledger.places.root.rglob("*") if path.is_file() and path.name != "first.token"]
    assert not [path for path in everything if token.encode() in path.read_bytes()]
    cli("token", "revoke", OWNER)
    with api_process(ledger, "--port", "0"):
        pass
    assert read_tokens(ledger.places.tokens) == [], "who has taken it away does not get it again"


def test_one_is_made_by_those_that_start_together(workshop: Workshop) -> None:
    workshop.places.make()
    with ThreadPoolExecutor(8) as threads:
        made = [*threads.map(lambda _: make_first_token(workshop.places, now_ns=1), range(8))]
    assert made.count(workshop.places.first_token) == 1
    (record,) = read_tokens(workshop.places.tokens)
    assert record.sha256 == hash_token(workshop.places.first_token.read_text().strip())
    assert [path.name for path in workshop.places.root.iterdir() if path.name.startswith("first")] == ["first.token"]


def test_a_crash_before_its_hash_is_kept_is_made_good(workshop: Workshop) -> None:
    workshop.places.make()
    make_first_token(workshop.places, now_ns=1)
    token = workshop.places.first_token.read_text()
    workshop.places.tokens.unlink()  # as if it had never been written
    assert make_first_token(workshop.places, now_ns=2) == workshop.places.first_token
    assert workshop.places.first_token.read_text() == token
    assert read_tokens(workshop.places.tokens)[0].sha256 == hash_token(token.strip())


def test_none_where_somebody_has_decided_who_may_ask(workshop: Workshop) -> None:
    workshop.places.make()
    workshop.places.tokens.touch(mode=0o600)
    assert make_first_token(workshop.places, now_ns=1) is None
    assert not workshop.places.first_token.exists()


@pytest.mark.parametrize(
    "changes",
    [{"host": "0.0.0.0"}, {"public_url": "https://audit.example"}],  # noqa: S104 - not listened on
)
def test_none_where_others_can_reach_it(workshop: Workshop, changes: dict[str, str]) -> None:
    assert wants_first_token(workshop.config)
    api = msgspec.structs.replace(workshop.config.audit_api, **changes)
    assert not wants_first_token(msgspec.structs.replace(workshop.config, audit_api=api))


def test_the_doctor_looks_after_it(ledger: Workshop) -> None:
    places = ledger.places
    make_first_token(places, now_ns=1)
    assert troubles(examine_secrets(ledger.config, places)) == []
    places.first_token.chmod(0o640)
    assert only(examine_secrets(ledger.config, places)).mend == (f"chmod 600 {places.first_token}",)
    places.first_token.chmod(0o600)
    change_tokens(places.tokens, lambda _: [])
    assert only(examine_secrets(ledger.config, places)).mend == (f"rm {places.first_token}",)
    assert "tally_" not in json.dumps(
        [msgspec.to_builtins(check) for check in examine_secrets(ledger.config, places).checks]
    )
