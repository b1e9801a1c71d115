"""The configuration: every key optional, unknown ones refused with their path, errors that say where."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.settings import CollectorSettings
from deploy.config import Config, ConfigError, load, parse
from deploy.places import Places
from deploy.reference import dump, toml_value
from deploy.storing import open_store

FOLDER = Path("/somewhere")


def read(text: str) -> Config:
    return parse(text, source="tally.toml", folder=FOLDER)


def refusal(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text)
    return str(caught.value)


def test_nothing_need_be_said() -> None:
    config = read("")
    assert config.collector == CollectorSettings()
    assert config.data == "/somewhere/tally-data"
    assert config.sidecars == {}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dta = 1", "tally.toml: dta: unknown key; did you mean data?"),
        ("[collector.forward]\nprot = 1", "tally.toml: collector.forward.prot: unknown key; did you mean port?"),
        (
            "[sidecars.a.forward]\nprot = 1",
            "tally.toml: sidecars.a.forward.prot: unknown key; did you mean port?",
        ),
        (
            '[[collector.stitch.keys]]\nname = "a"\nfields = ["attributes.a"]\n[[collector.stitch.keys]]\nnam = "b"',
            "tally.toml: collector.stitch.keys[1].nam: unknown key; did you mean name?",
        ),
        (
            '[[correlator.flows]]\nname = "f"\n[[correlator.flows.steps]]\nname = "a"\nmatch = { nmae = "x" }',
            "tally.toml: correlator.flows[0].steps[0].match.nmae: unknown key; did you mean name?",
        ),
        ("[correlatr]", "tally.toml: correlatr: unknown key; did you mean correlator?"),
    ],
)
def test_an_unknown_key_is_refused_with_its_path(text: str, said: str) -> None:
    assert refusal(text) == said


def test_an_unknown_key_that_resembles_nothing_is_answered_with_what_there_is() -> None:
    assert refusal("[collector.forward]\nzzz = 1").startswith(
        "tally.toml: collector.forward.zzz: unknown key; known here: host, port, "
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[collector.forward]\nport = "x"', "tally.toml: collector.forward.port: Expected `int`, got `str`"),
        ("[collector.forward]\nport = 70000", "tally.toml: collector.forward.port: Expected `int` <= 65535"),
        ('[sidecars.a.http]\nport = "x"', "tally.toml: sidecars.a.http.port: Expected `int`, got `str`"),
        ("sidecars = 3", "tally.toml: sidecars: Expected tables like [sidecars.payments]"),
        ("[sidecars]\na = 3", "tally.toml: sidecars.a: Expected `object`, got `int`"),
        ("collector = 3", "tally.toml: collector: Expected `object`, got `int`"),
        ('[sidecars.a]\nname = "b"', "tally.toml: sidecars.a.name: a sidecar is called what its table is called"),
        ('[correlator]\nenrolled = { A = [""] }', "tally.toml: correlator.enrolled"),
        ('[audit_api]\ntls_key = "k"', "tally.toml: audit_api: tls_certificate and tls_key belong together"),
        ('ledger = ""', "tally.toml: ledger must be a name without white space and '+'"),
        ('ledger = "our ledger"', "tally.toml: ledger must be a name without white space and '+'"),
        ("a = ", "tally.toml: not TOML: "),
        ("a = 1\na = 2", "tally.toml: not TOML: "),
    ],
)
def test_a_wrong_value_is_refused_with_its_path(text: str, said: str) -> None:
    assert refusal(text).startswith(said)


def test_a_sidecar_is_the_collector_with_what_differs() -> None:
    config = read(
        '[collector]\nservice = "s"\n[collector.forward]\nport = 1\nhost = "127.0.0.2"\n'
        "[sidecars.a.forward]\nport = 2\n[sidecars.b]\n"
    )
    assert list(config.sidecars) == ["a", "b"]
    a, b = config.sidecars.values()
    assert (a.name, a.service, a.forward.host, a.forward.port) == ("a", "s", "127.0.0.2", 2)
    assert (b.name, b.service, b.forward.host, b.forward.port) == ("b", "s", "127.0.0.2", 1)


def test_what_is_printed_reads_back_the_same() -> None:
    import msgspec

    config = read('[sidecars."a.b"]\n[collector]\nservice = "Ü \\"x\\" \\u007f"\n[correlator.enrolled]\n')
    again = read(dump(msgspec.to_builtins(config)))
    assert again == config


def test_where_the_file_is(tmp_path: Path) -> None:
    assert load(None, environ={}, folder=tmp_path)[1] is None
    (tmp_path / "tally.toml").write_text('ledger = "here"')
    assert load(None, environ={}, folder=tmp_path)[0].ledger == "here"
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "other.toml").write_text('ledger = "there"')
    config, path = load(None, environ={"TALLY_CONFIG": "sub/other.toml"}, folder=tmp_path)
    assert (config.ledger, path) == ("there", tmp_path / "sub" / "other.toml")
    assert config.data == str(tmp_path / "sub" / "tally-data"), "data counts from the file's folder"
    config, _ = load(Path("tally.toml"), environ={"TALLY_CONFIG": "sub/other.toml"}, folder=tmp_path)
    assert config.ledger == "here", "what the command line says counts more"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file or directory"):
        load(Path("none.toml"), environ={}, folder=tmp_path)
    (tmp_path / "latin.toml").write_bytes(b'ledger = "\xe4"')
    with pytest.raises(ConfigError, match=r"latin\.toml: not UTF-8 at byte 10"):
        load(Path("latin.toml"), environ={}, folder=tmp_path)
    (tmp_path / "long.toml").write_bytes(b"#" * 1_048_577)
    with pytest.raises(ConfigError, match="longer than"):
        load(Path("long.toml"), environ={}, folder=tmp_path)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read(text)
    except ConfigError:
        pass


names = st.sampled_from(
    "data ledger collector sidecars correlator audit_api forward http stitch keys flows steps match name port x".split()
)
values: st.SearchStrategy[Any] = st.recursive(
    st.integers(-(2**63), 2**63 - 1)
    | st.booleans()
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(names, values, max_size=4))
def test_any_tables_are_read_or_refused(tables: dict[str, Any]) -> None:
    text = "\n".join(f"{name} = {toml_value(value)}" for name, value in tables.items())
    refused = ""
    try:
        read(text)
    except ConfigError as error:
        refused = str(error)
    assert "not TOML" not in refused, text


def test_the_store_s_files_count_from_the_file_and_no_secret_stands_in_it() -> None:
    store = read('[store]\nurls = ["https://a:9200"]\nca_file = "ca.pem"\nuser = "u"\npassword_file = "/run/pw"').store
    assert (store.ca_file, store.password_file, store.client_key) == ("/somewhere/ca.pem", "/run/pw", "")
    for url in ("https://user:secret@a:9200", "opensearch://a", "https://a:9200/path", "a:9200", "https:// a"):
        assert "store.urls[0]" in refusal(f'[store]\nurls = ["{url}"]').replace("[...]", "[0]"), url


def test_files_with_keys_of_collectors_are_where_they_are_whatever_the_folder() -> None:
    text = """
[collector.forward]
shared_key_file = "forward.key"
client_key_files = { web-1 = "keys/web-1", web-2 = "/run/web-2" }
[collector.http]
tls_certificate = "h.pem"
tls_key = "h-key.pem"
[sidecars.a.forward]
shared_key_file = "/run/a.key"
"""
    config = read(text)
    assert config.collector.forward.shared_key_file == "/somewhere/forward.key"
    assert config.collector.forward.client_key_files == {"web-1": "/somewhere/keys/web-1", "web-2": "/run/web-2"}
    broker = read(
        '[[collector.amqp]]\nqueue = "q"\ntls = true\ntls_ca = "ca.pem"\npassword_file = "/run/pw"'
    ).collector.amqp[0]
    assert (broker.tls_ca, broker.password_file, broker.tls_key) == ("/somewhere/ca.pem", "/run/pw", "")
    pulsar = read(
        '[[collector.pulsar]]\nbrokers = ["b:1"]\ntopics = ["t"]\ntls = true\ntls_ca = "ca.pem"\ntoken_file = "token"'
    ).collector.pulsar[0]
    assert (pulsar.tls_ca, pulsar.token_file, pulsar.tls_key) == ("/somewhere/ca.pem", "/somewhere/token", "")
    assert config.collector.http.tls_key == "/somewhere/h-key.pem"
    assert config.sidecars["a"].forward.shared_key_file == "/run/a.key"
    assert config.sidecars["a"].http.tls_certificate == "/somewhere/h.pem"
    assert config.collector.forward.tls_client_ca == ""
    api = read(
        '[audit_api]\ntls_certificate = "a.pem"\ntls_key = "a.key"\ntls_client_ca = "ca.pem"\nreport_fonts = ["f.ttf", "/f.otf"]'
    ).audit_api
    assert (api.tls_certificate, api.tls_key, api.tls_client_ca) == (
        "/somewhere/a.pem",
        "/somewhere/a.key",
        "/somewhere/ca.pem",
    )
    assert api.report_fonts == ("/somewhere/f.ttf", "/f.otf")


def test_other_files_count_from_the_folder_of_the_file_too() -> None:
    config = read(
        """
[audit_api]
tls_certificate = "api.pem"
tls_key = "/run/api-key.pem"
tls_client_ca = "ca.pem"
report_fonts = ["a.ttf", "/usr/share/b.ttf"]
[collector.forward]
unix_socket = "run/forward.sock"
[collector.kubernetes]
token_file = "token"
"""
    )
    api, kubernetes = config.audit_api, config.collector.kubernetes
    assert (api.tls_certificate, api.tls_key, api.tls_client_ca) == (
        "/somewhere/api.pem",
        "/run/api-key.pem",
        "/somewhere/ca.pem",
    )
    assert api.report_fonts == ("/somewhere/a.ttf", "/usr/share/b.ttf")
    assert config.collector.forward.unix_socket == "/somewhere/run/forward.sock"
    assert kubernetes.token_file == "/somewhere/token"
    assert kubernetes.ca_file.startswith("/var/run/secrets/")
    assert read("").audit_api.tls_certificate == read("").collector.forward.unix_socket == ""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('user = "u"', "store.user: user and password_file come together"),
        ('client_key = "k"', "store.client_certificate: certificate and key come together"),
        ("copies = 2", "store.copies: 2 copies cannot be there with 0 replicas"),
        ('user = "u"\npassword_file = "p"', "store.urls: the password would go to a unencrypted: use https"),
    ],
)
def test_what_does_not_go_together_in_the_store_is_refused(text: str, said: str, tmp_path: Path) -> None:
    config = parse(f'[store]\nurls = ["http://a:9200"]\n{text}', source="tally.toml", folder=tmp_path)
    with pytest.raises(ConfigError) as told:
        open_store(config, Places(tmp_path))
    assert str(told.value) == said


def test_a_store_that_is_not_installed_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse('[store]\nurls = ["http://127.0.0.1:1"]', source="tally.toml", folder=tmp_path)
    monkeypatch.setitem(sys.modules, "opensearchpy", None)  # as Python marks what cannot be imported
    for name in [name for name in sys.modules if name.startswith("collector.store.opensearch")]:
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ConfigError, match=r"pip install 'tallystick\[opensearch\]'"):
        open_store(config, Places(tmp_path))


def test_a_file_of_the_store_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    text = '[store]\nurls = ["https://127.0.0.1:1"]\nca_file = "absent.pem"'
    config = parse(text, source="tally.toml", folder=tmp_path)
    with pytest.raises(ConfigError, match=r"absent.pem cannot be read: No such file"):
        open_store(config, Places(tmp_path))
