"""Who may send by Forward: the handshake with keys and users, certificates, and where a sidecar listens at all."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from pathlib import Path
from typing import Any

import msgpack
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.forward import Handshake
from collector.receive.forward_framing import Framing
from collector.receive.forward_guard import certificate_name, handshake_of
from collector.receive.forward_handshake import Greeting
from collector.receive.listening import tls_of
from collector.settings import ForwardSettings
from tests.servers.certificates import Authority
from tests.support.forwarding import Sender, Setting, run, shared_key_digest

KEY = b"a key that is shared"


def test_the_handshake_lets_in_who_knows_the_key_and_proves_that_we_do() -> None:
    async def story() -> None:
        async with Setting(handshake=Handshake(shared_key=KEY, hostname="us")) as at:
            sender = await at.sender()
            name, options = await sender.hear()
            assert name == "HELO"
            assert options["auth"] == ""
            nonce = options["nonce"]
            assert len(nonce) == 16
            sender.say(["PING", "them", "salt", shared_key_digest(b"salt", b"them", nonce, KEY), "", ""])
            assert await sender.hear() == ["PONG", True, "", "us", shared_key_digest(b"salt", b"us", nonce, KEY)]
            sender.say(["t", 1, {"message": "in"}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}

    run(story())


@pytest.mark.parametrize(
    "ping",
    [
        ["PING", "them", b"salt", "0" * 128, "", ""],
        ["PING", "them", b"salt"],
        ["t", 1, {"message": "no ping"}],
        {"PING": 1},
        17,
        ["PING", 1, 2, 3, 4, 5],
    ],
)
def test_the_handshake_keeps_out_everybody_else(ping: object) -> None:
    async def story() -> None:
        async with Setting(handshake=Handshake(shared_key=KEY)) as at:
            sender = await at.sender()
            await sender.hear()
            sender.say(ping, ["t", 1, {"message": "sneaked in"}, {"chunk": "c"}])
            answer = await sender.hear()
            assert answer[:2] == ["PONG", False]
            assert answer[4] == ""
            await sender.hear_the_end()
            assert at.intake.events == []
            assert at.reasons == ["handshake"]

    run(story())


def test_of_who_has_not_shown_the_key_nothing_is_kept() -> None:
    async def story() -> None:
        async with Setting(handshake=Handshake(shared_key=KEY, timeout_seconds=0.1)) as at:
            for _ in range(3):
                sender = await at.sender()
                await sender.hear()
                sender.writer.write(b"\xc1" + b"x" * 65_535)  # dead letters have a bound, beyond which nobody is heard
                await sender.hear_the_end()
            await asyncio.sleep(0.2)  # longer than a sender may take: its end is told once
            assert at.intake.dead == []
            assert at.reasons == ["handshake"] * 3

    run(story())


def test_a_sender_that_never_answers_is_let_go() -> None:
    async def story() -> None:
        async with Setting(handshake=Handshake(shared_key=KEY, timeout_seconds=0.05)) as at:
            sender = await at.sender()
            await sender.hear()
            await sender.hear_the_end()
            assert at.reasons == ["handshake"]

    run(story())


def test_the_key_is_not_in_the_repr() -> None:
    assert "shared" not in repr(Handshake(shared_key=KEY)).replace("shared_key", "")


# ------------------------------------------------------------------------------------------------- keys and users
OWN, PASSWORD = b"a key of web-1 alone", b"ann's password"


def ping(
    helo: dict[str, Any],
    *,
    host: str = "them",
    key: bytes = KEY,
    user: str = "",
    password: bytes | None = None,
    salt: bytes = b"\0\xff salt",
) -> list[Any]:
    """What a sender answers, made as the specification has it."""
    proof = "" if password is None else hashlib.sha512(helo["auth"] + user.encode() + password).hexdigest()
    return ["PING", host, salt, shared_key_digest(salt, host.encode(), helo["nonce"], key), user, proof]


async def greeted(sender: Sender, **said: Any) -> list[Any]:
    """The PONG."""
    _, helo = await sender.hear()
    sender.say(ping(helo, **said))
    answer: list[Any] = await sender.hear()
    return answer


GUARDED = Handshake(shared_key=KEY, client_keys={"web-1": OWN, "bé": OWN}, passwords={"ann": PASSWORD}, hostname="us")


@pytest.mark.parametrize(
    ("handshake", "said", "peer"),
    [
        (Handshake(shared_key=KEY, client_keys={"web-1": OWN}), {"host": "web-1", "key": OWN}, "client:web-1"),
        (Handshake(shared_key=KEY, client_keys={"web-1": OWN}), {"host": "web-2", "key": KEY}, ""),
        (Handshake(client_keys={"bé": OWN}), {"host": "bé", "key": OWN}, "client:b\\xc3\\xa9"),
        (GUARDED, {"user": "ann", "password": PASSWORD}, "user:ann"),
        (GUARDED, {"host": "web-1", "key": OWN, "user": "ann", "password": PASSWORD}, "user:ann"),
    ],
)
def test_who_shows_what_is_demanded_may_send_and_is_named(
    handshake: Handshake, said: dict[str, Any], peer: str
) -> None:
    async def story() -> None:
        async with Setting(handshake=handshake) as at:
            sender = await at.sender()
            assert (await greeted(sender, **said))[:3] == ["PONG", True, ""]
            sender.say(["t", 1, {"message": "in"}, {"chunk": "c"}], ["u", 1, {"message": "too"}, {"chunk": "d"}])
            assert [await sender.hear(), await sender.hear()] == [{"ack": "c"}, {"ack": "d"}]
            origins = [event.origin for event in at.intake.events]
            assert [(origin.peer, origin.tag) for origin in origins if origin] == [(peer, "t"), (peer, "u")]

    run(story())


@pytest.mark.parametrize(
    ("handshake", "said", "reason"),
    [
        # a client with a key of its own is not opened for by the shared one, nor by another's
        (GUARDED, {"host": "web-1", "key": KEY, "user": "ann", "password": PASSWORD}, "shared key mismatch"),
        (GUARDED, {"host": "web-2", "key": OWN, "user": "ann", "password": PASSWORD}, "shared key mismatch"),
        (Handshake(client_keys={"web-1": OWN}), {"host": "web-2", "key": b""}, "shared key mismatch"),
        (GUARDED, {"user": "ann", "password": b"another"}, "username/password mismatch"),
        (GUARDED, {"user": "bob", "password": PASSWORD}, "username/password mismatch"),
        (GUARDED, {"user": "bob", "password": b""}, "username/password mismatch"),
        (GUARDED, {}, "username/password mismatch"),
    ],
)
def test_who_does_not_is_told_why_and_kept_out(handshake: Handshake, said: dict[str, Any], reason: str) -> None:
    async def story() -> None:
        async with Setting(handshake=handshake) as at:
            sender = await at.sender()
            assert await greeted(sender, **said) == ["PONG", False, reason, "", ""]
            sender.say(["t", 1, {"message": "sneaked in"}, {"chunk": "c"}])
            await sender.hear_the_end()
            assert (at.intake.events, at.reasons) == ([], ["handshake"])

    run(story())


def test_an_answer_of_another_connection_opens_nothing() -> None:
    async def story() -> None:
        async with Setting(handshake=GUARDED) as at:
            first, second = await at.sender(), await at.sender()
            _, helo = await first.hear()
            await second.hear()
            second.say(ping(helo, user="ann", password=PASSWORD))
            assert (await second.hear())[1] is False

    run(story())


def test_a_sender_that_leaves_without_a_word_is_no_refusal() -> None:
    """Fluentd's heartbeats over TCP do that every second."""

    async def story() -> None:
        async with Setting(handshake=GUARDED) as at:
            sender = await at.sender()
            await sender.hear()
            sender.writer.write_eof()
            await sender.hear_the_end()
            assert at.reasons == []

    run(story())


def test_an_unknown_user_costs_as_much_as_a_known_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Counted in digests, since timings are noise."""
    handshake = Handshake(shared_key=KEY, passwords={"ann": PASSWORD}, random=lambda count: b"n" * count)
    helo = {"nonce": b"n" * 16, "auth": b"n" * 16}
    said = {user: msgpack.packb(ping(helo, user=user, password=b"wrong")) for user in ("ann", "bob")}
    lengths: list[int] = []
    real = hashlib.sha512

    def counted(data: bytes) -> Any:
        lengths.append(len(data))
        return real(data)

    monkeypatch.setattr(hashlib, "sha512", counted)
    for data in said.values():
        greeting = Greeting(handshake, Framing(1_000_000))
        assert b"mismatch" in greeting.hear(data)
        assert not greeting.welcome
    assert len(lengths) == 4


def test_a_ping_has_a_greatest_length() -> None:
    handshake = Handshake(shared_key=KEY, random=lambda count: b"n" * count)
    for length, welcome in ((3_000, True), (5_000, False)):
        greeting = Greeting(handshake, Framing(1_000_000))
        greeting.hear(msgpack.packb(ping({"nonce": b"n" * 16}, salt=b"s" * length)))
        assert (greeting.over, greeting.welcome) == (True, welcome)


def test_keys_and_passwords_are_in_no_repr() -> None:
    assert all(secret.decode() not in repr(GUARDED) for secret in (KEY, OWN, PASSWORD))


pings = st.lists(
    st.sampled_from(["PING", b"PING", "them", "web-1", "ann", "0" * 128])
    | st.text(max_size=3)
    | st.binary(max_size=3)
    | st.integers(-9, 2**64 - 1)
    | st.none()
    | st.lists(st.none(), max_size=2),
    max_size=7,
)


@settings(max_examples=300)
@given(pings.map(msgpack.packb) | st.binary(max_size=60))
def test_whatever_is_said_is_refused_in_words_or_malformed(data: bytes) -> None:
    greeting = Greeting(GUARDED, Framing(1_000_000))
    try:
        answer = greeting.hear(data)
    except Malformed:
        return
    assert not greeting.welcome
    if answer:
        word, good, reason, *_ = msgpack.unpackb(answer)
        assert (word, good) == ("PONG", False)
        assert reason


# ---------------------------------------------------------------------------------------------------- certificates
@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("server")
    made.issue("payments")
    return made


def trusting(authority: Authority, own: str = "", *, newest: ssl.TLSVersion | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if own:
        context.load_cert_chain(authority.folder / f"{own}.pem", authority.folder / f"{own}-key.pem")
    if newest is not None:
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
    return context


def server_of(authority: Authority, **further: Any) -> ssl.SSLContext:
    certificate, key = authority.folder / "server.pem", authority.folder / "server-key.pem"
    tls = tls_of(ForwardSettings(tls_certificate=str(certificate), tls_key=str(key), **further))
    assert tls is not None
    return tls


def test_a_sender_with_a_certificate_is_named_by_it_and_others_are_kept_out(
    authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    other.issue("payments")
    stranger = trusting(authority)
    stranger.load_cert_chain(other.folder / "payments.pem", other.folder / "payments-key.pem")

    async def story() -> None:
        tls = server_of(authority, tls_client_ca=str(authority.ca))
        async with Setting(tls=tls, handshake=Handshake(client_keys={"web-1": OWN}), tls_seconds=0.4) as at:
            sender = await at.sender(trusting(authority, "payments"))
            assert (await greeted(sender, host="web-1", key=OWN))[1] is True
            sender.say(["t", 1, {"message": "in"}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            (event,) = at.intake.events
            assert event.origin is not None
            assert event.origin.peer == "certificate:payments"
            for context in (trusting(authority), stranger):
                with pytest.raises((EOFError, OSError)):
                    await (await at.sender(context)).hear()
            silent = await at.sender()  # says nothing, not even TLS
            await silent.hear_the_end()
            while len(at.reasons) < 3:  # they are counted when their time is over
                at.refusal.clear()
                await at.refusal.wait()
            assert len(at.intake.events) == 1
            assert at.reasons == ["tls"] * 3

    run(story())


def test_tls_without_a_client_ca_asks_for_no_certificate_and_names_nobody(authority: Authority) -> None:
    async def story() -> None:
        async with Setting(tls=server_of(authority)) as at:
            sender = await at.sender(trusting(authority, "payments"))
            sender.say(["t", 1, {"message": "in"}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            assert [event.origin.peer for event in at.intake.events if event.origin] == [""]

    run(story())


def test_a_receiver_closes_while_senders_over_tls_are_leaving(authority: Authority) -> None:
    """At some turn of the event loop such a sender has gone already, and its connection has not heard of it."""

    async def story(turns: int) -> None:
        async with Setting(tls=server_of(authority)) as at:
            sender = await at.sender(trusting(authority))
            sender.say(["t", 1, {}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}
            sender.writer.close()
            for _ in range(turns):
                await asyncio.sleep(0)
            await at.receiver.close(2.0)

    for turns in range(8):
        run(story(turns))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
def test_tls_older_than_1_2_is_refused(authority: Authority) -> None:
    async def story() -> None:
        async with Setting(tls=server_of(authority)) as at:
            with pytest.raises((OSError, EOFError)):
                await at.sender(trusting(authority, newest=ssl.TLSVersion.TLSv1_1))
            sender = await at.sender(trusting(authority, newest=ssl.TLSVersion.TLSv1_2))
            sender.say(["t", 1, {}, {"chunk": "c"}])
            assert await sender.hear() == {"ack": "c"}

    run(story())


@pytest.mark.parametrize(
    ("certificate", "name"),
    [
        (None, ""),
        ({}, ""),
        ({"subject": ((("organizationName", "o"),), (("commonName", "pay"),))}, "pay"),
        (
            {"subject": ((("commonName", "pay"),),), "subjectAltName": (("DNS", "d"), ("URI", "spiffe://x/pay"))},
            "spiffe://x/pay",
        ),
        ({"subject": (), "subjectAltName": (("DNS", "d"), ("DNS", "e"))}, "d"),
        ({"subject": ((("commonName", "é" * 300),),)}, ("\\xe9" * 300)[:256]),
    ],
)
def test_whose_certificate_it_is(certificate: Any, name: str) -> None:
    assert certificate_name(certificate) == name


def test_the_same_chunk_of_two_peers_is_two_groups() -> None:
    async def story() -> None:
        async with Setting(handshake=Handshake(client_keys={"a": OWN, "b": OWN})) as at:
            for host in ("a", "b", "a"):
                sender = await at.sender()
                await greeted(sender, host=host, key=OWN)
                sender.say(["t", 1, {"message": host}, {"chunk": "same"}])
                assert await sender.hear() == {"ack": "same"}
            assert [event.body for event in at.intake.events] == ["a", "b"]

    run(story())


# --------------------------------------------------------------------------------------------- settings and files
EVERYWHERE = "0.0.0.0"  # noqa: S104 - no test listens there


def read(**table: Any) -> ForwardSettings:
    return msgspec.convert(table, ForwardSettings)


@pytest.mark.parametrize(
    ("table", "why"),
    [
        ({"host": EVERYWHERE}, "unprotected = true"),
        ({"host": "::"}, "unprotected = true"),
        ({"host": "collector.internal"}, "unprotected = true"),
        ({"tls_certificate": "c"}, "go together"),
        ({"tls_key": "k"}, "go together"),
        ({"tls_client_ca": "ca"}, "goes with tls_certificate"),
        ({"password_files": {"ann": "f"}}, "password_files go with"),
        ({"client_key_files": ["f"]}, "client_key_files"),
    ],
)
def test_what_would_protect_less_than_it_seems_is_refused(table: dict[str, Any], why: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=why):
        read(**table)


@pytest.mark.parametrize(
    "table",
    [
        {"host": "localhost"},
        {"host": "127.8.9.1"},
        {"host": "::1"},
        {"host": EVERYWHERE, "unprotected": True},
        {"host": EVERYWHERE, "shared_key_file": "k"},
        {"host": EVERYWHERE, "client_key_files": {"a": "k"}},
        {"host": EVERYWHERE, "tls_certificate": "c", "tls_key": "k"},
        {"host": EVERYWHERE, "port": -1},
    ],
)
def test_where_it_may_listen(table: dict[str, Any]) -> None:
    assert read(**table).host == table["host"]


def test_secrets_are_read_from_files_without_the_white_space_around_them(tmp_path: Path) -> None:
    for name, content in (("shared", b"s 1\n"), ("own", b" o\r\n"), ("password", b"p\n"), ("empty", b" \n")):
        (tmp_path / name).write_bytes(content)
    (tmp_path / "long").write_bytes(b"x" * 2_000)
    files = {name: str(tmp_path / name) for name in ("shared", "own", "password", "empty", "long")}
    made = handshake_of(
        read(
            shared_key_file=files["shared"],
            client_key_files={"w": files["own"]},
            password_files={"u": files["password"]},
        ),
        hostname="us",
    )
    assert made is not None
    assert (made.shared_key, made.client_keys, made.passwords) == (b"s 1", {"w": b"o"}, {"u": b"p"})
    only = handshake_of(read(client_key_files={"w": files["own"]}), hostname="us")
    assert only is not None
    assert only.shared_key is None
    assert handshake_of(read(), hostname="us") is None
    for name in ("empty", "long"):
        with pytest.raises(Malformed, match=name):
            handshake_of(read(shared_key_file=files[name]), hostname="us")
    with pytest.raises(FileNotFoundError):
        handshake_of(read(shared_key_file=str(tmp_path / "none")), hostname="us")


# ------------------------------------------------------------------------------------------------------ heartbeat
def test_a_udp_heartbeat_is_answered_with_one_byte_and_an_empty_one_is_not() -> None:
    async def story() -> None:
        async with Setting() as at:
            port = await at.receiver.answer_heartbeats("127.0.0.1", at.port)  # UDP has ports of its own
            assert port == at.port
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
                asking.settimeout(0)
                asking.bind(("127.0.0.1", 0))
                for packet in (b"", b"\0", b"x" * 1_000):
                    await loop.sock_sendto(asking, packet, ("127.0.0.1", port))
                for _ in range(2):
                    assert await loop.sock_recvfrom(asking, 10) == (b"\0", ("127.0.0.1", port))
                await at.receiver.close(0.1)
                with pytest.raises(BlockingIOError):
                    asking.recvfrom(10)

    run(story())
