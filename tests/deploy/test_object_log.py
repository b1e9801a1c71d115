"""The command on a ledger whose log lies on an S3 server: written, read, checked and tampered with there."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from correlator.storage.bucket import ObstoreBucket, bucket_at
from deploy.config import Config, ConfigError, parse
from tests.support.s3_server import S3Server

if TYPE_CHECKING:
    from tests.deploy.conftest import Cli, Workshop


@dataclass(frozen=True)
class Remote:
    """A ledger of two payments, and the bucket with its log."""

    workshop: Workshop
    url: str
    bucket: ObstoreBucket

    @property
    def key(self) -> str:
        return str(self.workshop.places.log_vkey)

    def paths(self) -> list[str]:
        return sorted(self.bucket.paths("tile"))


@pytest.fixture
def remote(workshop: Workshop, s3: S3Server, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Remote:
    from tests.deploy.conftest import EVENTS

    where = f'log = "{s3_url}"\nlog_endpoint = "{s3.endpoint}"\n'
    workshop.file.write_text(where + workshop.file.read_text())
    workshop.collect(EVENTS)
    workshop.correlate()
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.endpoint)  # for `tally verify`, which has no configuration
    return Remote(workshop, s3_url, bucket_at(s3_url, endpoint=s3.endpoint))


@pytest.mark.objectstore
def test_everything_that_reads_the_log_reads_it_there(remote: Remote, cli: Cli, tmp_path: Path) -> None:
    assert not remote.workshop.places.log.exists()
    assert remote.paths()
    code, out, _ = cli("check")
    assert (code, out.startswith("TRUE: all holds")) == (0, True), out
    code, out, _ = cli("trail", "p1", "--width", "100")
    assert (code, "verified" in out) == (0, True), out
    told = {
        check["name"]: check for check in json.loads(cli("doctor", "--json")[1])["checks"] if check["subject"] == "log"
    }
    assert {check["outcome"] for check in told.values()} == {"ok"}, told
    assert "before it wrote" in told["conditional puts"]["found"]
    assert json.loads(cli("doctor", "--write-probe", "--json")[1])["counts"]["failed"] == 0
    assert not list(remote.bucket.paths("probe"))
    bundle = tmp_path / "p1.zip"
    assert cli("export", "p1", "-o", str(bundle))[0] == 0
    assert cli("verify", str(bundle), "--key", remote.key)[0] == 0
    code, out, _ = cli("verify", remote.url, "--key", remote.key)
    assert (code, out[:6]) == (0, "TRUE: "), out
    told = json.loads(cli("status", "--json")[1])
    assert (told["ledger"]["epoch"], told["ledger"]["writer"], told["problems"]) == (1, "", [])
    assert "log" not in told["bytes"]
    code, out, _ = cli("reindex")
    assert code == 0, out


@pytest.mark.objectstore
def test_what_is_changed_there_is_found(remote: Remote, cli: Cli) -> None:
    bundles = [path for path in remote.paths() if path.startswith("tile/entries/")]
    path = max(bundles, key=lambda path: int(path.rpartition("/")[2]))  # the widest one: narrower ones may go
    good = remote.bucket.get(path).data
    remote.bucket.put(path, good[:-1] + b"x")
    code, out, _ = cli("check")
    assert (code, path in out) == (1, True), out
    code, out, _ = cli("verify", remote.url, "--key", remote.key)
    assert (code, out[:7]) == (1, "FALSE: ")
    remote.bucket.delete(path)
    assert cli("check")[0] == 1
    remote.bucket.put(path, good)
    assert cli("check")[0] == 0


@pytest.mark.objectstore
def test_a_lost_key_is_not_made_anew_over_a_log_there(remote: Remote) -> None:
    remote.workshop.places.log_key.unlink()
    with pytest.raises(ConfigError, match="only its own key can go on signing"):
        remote.workshop.correlate()


@pytest.mark.objectstore
def test_a_server_that_does_not_answer_is_neither_true_nor_false(remote: Remote, cli: Cli) -> None:
    text = remote.workshop.file.read_text().splitlines()
    text[1] = 'log_endpoint = "http://127.0.0.1:1"'
    remote.workshop.file.write_text("\n".join(text))
    code, _, err = cli("check")
    assert (code, "could not tell" in err) == (2, True), err


# ------------------------------------------------------------------------------------------------------------ configuration


def read(text: str) -> Config:
    return parse(text, source="tally.toml", folder=Path("/somewhere"))


@pytest.mark.parametrize("url", ["s3://bucket", "s3://bucket/a/b", "gs://bucket/log", "az://container/log"])
def test_places_in_object_storage(url: str) -> None:
    assert read(f'log = "{url}"').log == url


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('log = "ftp://x/y"', "log is no URL of the form s3://… or gs://… or az://…"),
        ('log = "bucket/log"', "log is no URL of the form"),
        ('log = "s3:///log"', "log is no URL of the form"),
        ('log = "s3://AKIA:hunter2@bucket/log"', "credentials come from the environment"),
        ('log = "s3://bucket/log?secret=hunter2"', "credentials come from the environment"),
        ('log_endpoint = "http://127.0.0.1:9000"', "log_endpoint goes with a log at s3://"),
        ('log = "gs://b/l"\nlog_endpoint = "http://127.0.0.1:9000"', "log_endpoint goes with a log at s3://"),
        (
            'log = "s3://b/l"\nlog_endpoint = "127.0.0.1:9000"',
            "log_endpoint is no URL of the form http://… or https://…",
        ),
        ('log = "s3://b/l"\nlog_endpoint = "http://u:hunter2@h:1"', "credentials come from the environment"),
    ],
)
def test_other_places_are_refused_and_no_secret_is_repeated(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert said in str(caught.value)
    assert "hunter2" not in str(caught.value)
