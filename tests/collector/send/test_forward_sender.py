"""Our sender of Fluent Forward: against our own receiver, and against servers that do what a server must not."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import Ext

from collector.clienttls import client_tls
from collector.errors import Overloaded
from collector.receive.forward import ForwardReceiver, Handshake
from collector.receive.listening import tls_of
from collector.retry import RetryLimits
from collector.send import Forwarder, Upstream
from collector.send.forward import Compression, event_time, new_chunk
from collector.send.forward_answer import Answers, Credentials, Unwelcome
from collector.settings import ForwardSettings
from tests.servers.certificates import Authority
from tests.support.forwarding import NOW_NS, Setting, run, shared_key_digest
from tests.support.memory_intake import MemoryIntake

KEY, PASSWORD = b"a key that is shared", b"ann's password"
QUICK = RetryLimits(base_seconds=0.01, cap_seconds=0.05)
ENTRIES: list[tuple[int, dict[str, Any]]] = [
    (NOW_NS + n, {"message": f"event {n}", "n": n, "log.record.uid": f"u{n}"}) for n in range(50)
]


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("ca"))
    made.issue("server")
    made.issue("payments")
    return made


def server_tls(authority: Authority) -> ssl.SSLContext:
    made = tls_of(
        ForwardSettings(
            tls_certificate=str(authority.folder / "server.pem"),
            tls_key=str(authority.folder / "server-key.pem"),
            tls_client_ca=str(authority.ca),
        )
    )
    assert made is not None
    return made


def credentials(**changes: Any) -> Credentials:
    return Credentials(**{"hostname": "edge-1", "shared_key": KEY, "user": "ann", "password": PASSWORD, **changes})


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
def test_what_send_has_returned_for_is_with_the_receiver(compression: Compression) -> None:
    async def story() -> None:
        async with Setting() as at:
            with Forwarder(Upstream(port=at.port, compression=compression)) as forwarder:
                chunk = await asyncio.to_thread(forwarder.send, "shop.cart", ENTRIES)
                assert [event.attributes["n"] for event in at.intake.events] == list(range(50))
                event = at.intake.events[1]
                assert (event.service, event.time) == ("shop", "2023-11-14T22:13:20.000000001Z")
                assert len(base64.b64decode(chunk)) == 16
                # the same chunk again is acknowledged again, and stored once; another one is another one
                assert await asyncio.to_thread(lambda: forwarder.send("shop.cart", ENTRIES, chunk=chunk)) == chunk
                await asyncio.to_thread(forwarder.send, "shop.cart", [(NOW_NS, {"message": "next"})])
            assert [event.body for event in at.intake.events[50:]] == ["next"]
            assert at.intake.dead == []
            assert at.reasons == []

    run(story())


def test_over_tls_with_a_certificate_a_key_and_a_user(authority: Authority) -> None:
    handshake = Handshake(client_keys={"edge-1": KEY}, passwords={"ann": PASSWORD})
    tls = client_tls(
        ca_file=str(authority.ca),
        certificate=str(authority.folder / "payments.pem"),
        key=str(authority.folder / "payments-key.pem"),
    )

    async def story() -> None:
        async with Setting(tls=server_tls(authority), handshake=handshake) as at:
            upstream = Upstream(host="localhost", port=at.port, tls=tls, credentials=credentials(), compression="zstd")
            with Forwarder(upstream) as forwarder:
                for _ in range(2):
                    await asyncio.to_thread(forwarder.send, "t", ENTRIES[:3])
            origins = {event.origin.peer for event in at.intake.events if event.origin}
            assert origins == {"certificate:payments"}

    run(story())


def test_over_a_unix_socket(tmp_path: Path) -> None:
    async def story() -> None:
        intake = MemoryIntake()
        receiver = ForwardReceiver(intake, clock=lambda: NOW_NS, handshake=Handshake(shared_key=KEY))
        await receiver.listen_unix(tmp_path / "s")
        with Forwarder(Upstream(unix_path=str(tmp_path / "s"), credentials=credentials())) as forwarder:
            await asyncio.to_thread(forwarder.send, "t", ENTRIES[:3])
        assert len(intake.events) == 3
        await receiver.close(1.0)

    run(story())


GUARDED = Handshake(shared_key=KEY, passwords={"ann": PASSWORD})


@pytest.mark.parametrize(
    ("handshake", "shown", "why"),
    [
        (GUARDED, credentials(shared_key=b"another"), "does not let us in: shared key mismatch"),
        (GUARDED, credentials(password=b"another"), "does not let us in: username/password mismatch"),
        (GUARDED, None, "demands a shared key"),
        (None, credentials(), "timed out"),  # a server without keys greets nobody
    ],
)
def test_who_is_not_let_in_is_told_why(handshake: Handshake | None, shown: Credentials | None, why: str) -> None:
    async def story() -> None:
        async with Setting(handshake=handshake) as at:
            upstream = Upstream(port=at.port, credentials=shown, connect_seconds=0.3)
            with Forwarder(upstream) as forwarder, pytest.raises(Overloaded, match=why) as caught:
                await asyncio.to_thread(lambda: forwarder.send("t", ENTRIES, patience_seconds=0.0))
            assert str(caught.value).startswith(f"127.0.0.1:{at.port}: ")
            assert at.intake.events == []

    run(story())


def test_a_server_whose_certificate_does_not_hold_gets_nothing(authority: Authority, tmp_path: Path) -> None:
    own = (str(authority.folder / "payments.pem"), str(authority.folder / "payments-key.pem"))
    other = Authority(tmp_path / "other")

    async def story() -> None:
        async with Setting(tls=server_tls(authority)) as at:
            right = client_tls(ca_file=str(authority.ca), certificate=own[0], key=own[1])
            for tls, name in ((client_tls(ca_file=str(other.ca)), ""), (right, "another.name")):
                upstream = Upstream(port=at.port, tls=tls, server_name=name)
                with Forwarder(upstream) as forwarder, pytest.raises(Overloaded, match=r"(?i)certificate"):
                    await asyncio.to_thread(lambda: forwarder.send("t", ENTRIES, patience_seconds=0.0))
            nameless = client_tls(ca_file=str(authority.ca))  # the server wants to see ours, too
            with Forwarder(Upstream(port=at.port, tls=nameless)) as forwarder, pytest.raises(Overloaded):
                await asyncio.to_thread(lambda: forwarder.send("t", ENTRIES, patience_seconds=0.0))
            with Forwarder(Upstream(port=at.port, tls=right)) as forwarder:
                await asyncio.to_thread(forwarder.send, "t", ENTRIES)
            assert len(at.intake.events) == 50

    run(story())


def test_a_chunk_without_an_ack_is_sent_again_under_its_id() -> None:
    """The receiver closes the connection of a chunk that it cannot take in time: the sender does not know, and asks again."""

    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 12
            with Forwarder(Upstream(port=at.port), retry=QUICK) as forwarder:
                await asyncio.to_thread(forwarder.send, "t", ENTRIES)
            assert len(at.intake.events) == 50
            assert "overloaded" in at.reasons
            assert len(set(at.intake.groups)) == 1

    run(story())


def test_patience_ends() -> None:
    async def story() -> None:
        async with Setting() as at:
            at.intake.overloaded = 10**9
            with Forwarder(Upstream(port=at.port), retry=QUICK) as forwarder, pytest.raises(Overloaded):
                await asyncio.to_thread(lambda: forwarder.send("t", ENTRIES, patience_seconds=0.2))

    run(story())


def test_a_connection_that_has_gone_while_it_rested_is_no_failure() -> None:
    async def story() -> None:
        async with Setting() as first:
            port = first.port
            forwarder = Forwarder(Upstream(port=port))
            packed = msgpack.packb([1, {"message": "a"}])
            await asyncio.to_thread(lambda: forwarder.send_packed("t", packed, count=1, chunk="1"))
        again = ForwardReceiver(first.intake, clock=lambda: NOW_NS)
        await again.listen_tcp(port=port)
        await asyncio.to_thread(lambda: forwarder.send_packed("t", packed, count=1, chunk="2"))
        forwarder.close()
        await again.close(1.0)
        assert len(first.intake.events) == 2

    run(story())


# --------------------------------------------------------------------------------------- servers that do what they must not
@contextlib.contextmanager
def server(behave: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a port of its own that treats each connection so."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(10)

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(10)
                        behave(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def saying(*answers: Any) -> Callable[[socket.socket], None]:
    def behave(connection: socket.socket) -> None:
        for answer in answers:
            connection.recv(65_536)
            connection.sendall(answer if isinstance(answer, bytes) else msgpack.packb(answer))
        connection.recv(65_536)

    return behave


@pytest.mark.parametrize(
    ("behave", "why"),
    [
        (saying({"ack": "another"}), "something else than the ack"),
        (saying(["PONG"]), "something else than the ack"),
        (saying(b"\xc1"), "does not speak Forward"),
        (saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "something else than the ack"),
        (saying(b"\xdb\x00\x10\x00\x00" + b"x" * 100_000), "does not speak Forward"),
        (lambda _: None, "without an ack|reset|pipe"),
        (lambda connection: connection.recv(1) and connection.recv(1), "without an ack|reset|timed out"),
    ],
)
def test_no_answer_but_the_ack_is_one(behave: Callable[[socket.socket], None], why: str) -> None:
    with (
        server(behave) as port,
        Forwarder(Upstream(port=port, answer_seconds=0.5)) as forwarder,
        pytest.raises(Overloaded, match=why),
    ):
        forwarder.send_packed("t", b"\x92\x01\x80", count=1, chunk="c")


def test_silence_is_timed_out_even_where_bytes_trickle_in() -> None:
    def trickle(connection: socket.socket) -> None:
        for byte in b"\x81\xa3ack\xda\x0b\xb8" + b"c" * 3_000:
            connection.sendall(bytes([byte]))
            threading.Event().wait(0.02)

    with (
        server(trickle) as port,
        Forwarder(Upstream(port=port, answer_seconds=0.3)) as forwarder,
        pytest.raises(Overloaded, match="timed out"),
    ):
        forwarder.send_packed("t", b"\x92\x01\x80", count=1, chunk="c" * 3_000)


def test_a_server_that_does_not_know_the_key_gets_no_events() -> None:
    heard: list[bytes] = []

    def pretend(connection: socket.socket) -> None:
        connection.sendall(msgpack.packb(["HELO", {"nonce": b"n" * 16, "auth": b""}]))
        _, _, salt, *_ = msgpack.unpackb(connection.recv(4_096))
        digest = shared_key_digest(salt.encode(), b"server", b"n" * 16, b"a guess")
        connection.sendall(msgpack.packb(["PONG", True, "", "server", digest]))
        heard.append(connection.recv(65_536))

    with (
        server(pretend) as port,
        Forwarder(Upstream(port=port, credentials=credentials())) as forwarder,
        pytest.raises(Overloaded, match="does not know the shared key"),
    ):
        forwarder.send("t", ENTRIES, patience_seconds=0.0)
    assert heard == [b""]


def test_a_server_that_keeps_no_connection_gets_one_for_each_chunk() -> None:
    greeted: list[object] = []

    def once(connection: socket.socket) -> None:
        connection.sendall(msgpack.packb(["HELO", {"nonce": b"n" * 16, "auth": "", "keepalive": False}]))
        word, name, salt, _, user, _ = msgpack.unpackb(connection.recv(4_096))
        greeted.append((word, name, user))  # no user is named to a server that asks for none
        digest = shared_key_digest(salt.encode(), b"server", b"n" * 16, KEY)
        connection.sendall(msgpack.packb(["PONG", True, "", "server", digest]))
        _, _, option = msgpack.unpackb(connection.recv(65_536))
        connection.sendall(msgpack.packb({"ack": option["chunk"]}))

    with server(once) as port, Forwarder(Upstream(port=port, credentials=credentials())) as forwarder:
        for _ in range(3):
            forwarder.send("t", ENTRIES, patience_seconds=0.0)
    assert greeted == [("PING", "edge-1", "")] * 3


def test_times_on_the_wire() -> None:
    assert event_time(1_700_000_000_000_000_007) == Ext(0, bytes.fromhex("6553f10000000007"))
    assert event_time(-1_500_000_000) == -1.5
    assert event_time(2**32 * 10**9) == float(2**32)


def test_secrets_are_in_no_repr_and_ids_differ() -> None:
    shown = repr(Upstream(credentials=credentials()))
    assert KEY.decode() not in shown
    assert PASSWORD.decode() not in shown
    assert new_chunk() != new_chunk()


answers = st.recursive(
    st.sampled_from([b"HELO", b"PONG", "HELO", "PONG", b"ack", True, False, None, b"n" * 16, "0" * 128])
    | st.integers(-9, 2**64 - 1)
    | st.binary(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=6)
        | st.dictionaries(
            st.sampled_from(["nonce", "auth", "keepalive", "ack"]) | st.binary(max_size=2), inner, max_size=4
        )
    ),
    max_leaves=8,
)


@settings(max_examples=150)
@given(st.lists(answers.map(msgpack.packb) | st.binary(max_size=40), max_size=4))
def test_whatever_a_server_says_is_an_answer_or_a_reason(pieces: list[bytes]) -> None:
    shown = credentials()
    hearing: list[Callable[[Answers], object]] = [
        lambda heard: heard.ack("c"),
        lambda heard: shown.ping(heard.next(), "salt"),
        lambda heard: shown.check(heard.next(), salt="salt", nonce=b"n"),
    ]
    for hear in hearing:
        left = iter(pieces)
        try:
            hear(Answers(partial(lambda rest, _: next(rest, b""), left)))
        except Overloaded as error:
            assert str(error)  # noqa: PT017 - either is right


def test_a_pong_is_only_good_with_its_digest() -> None:
    digest = shared_key_digest(b"salt", b"s", b"n", KEY)
    credentials().check([b"PONG", True, b"", b"s", digest.encode()], salt="salt", nonce=b"n")
    for pong in (
        [b"PONG", True, b"", b"s", b"0" * 128],
        [b"PONG", False, b"no", b"s", digest.encode()],
        [b"PONG", 1, b"", b"s", digest.encode()],
        [b"PONG", True, b"", b"other", digest.encode()],
        [b"PONG", True, b"", b"s"],
        {b"PONG": True},
    ):
        with pytest.raises(Unwelcome):
            credentials().check(pong, salt="salt", nonce=b"n")
