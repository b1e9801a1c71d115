"""Collectors that ship to another collector: what stands in the store's place where there is no store to reach.

The pipeline in front is the same as ever: an event is masked, spooled, synced and acknowledged here, and batches are cut, which here only
say how far shipping has come. A batch goes upstream as Forward chunks of whole events, under ids that follow from the batch; when the
upstream has acknowledged them, how far it has come is written here, and only then does the spool let go. The upstream numbers and signs
(docs/decisions/0026-collectors-relay-before-numbering.md).

    the process dies before the upstream's ack         the batch is sent again, and recognised by its chunk ids
    … after it, before the frontier is on disk         the same
    … after that                                       the spool lets go of it at the next release
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from collector.batch import Batch, SignedHeader, StreamId
from collector.clienttls import client_tls
from collector.disk import Disk, OsDisk
from collector.errors import StateUnknown
from collector.event import parse_time
from collector.receive.forward_events import CANONICAL_EVENTS, Relayed
from collector.secretfile import read_secret
from collector.send.forward import Forwarder, Upstream, event_time
from collector.send.forward_answer import Credentials
from collector.settings import RelaySettings

__all__ = ["ChunkSender", "Relay", "open_relay", "relays", "upstream_has"]

_FOLDER, _FILE, _NEW = "upstream", "frontier.json", "frontier.new"
_CHUNK_BYTES = 4 * 2**20  # far below the 16 MiB that a message may have
_CHUNK_EVENTS = 32_768  # and below its 131,072 records
_CLOSED_KEPT = 1_000
_CONNECT_SECONDS = 5.0
_ANSWER_SECONDS = (
    20.0  # an upstream that is busy answers, or closes, after some 15 seconds; a stop waits for so long at most
)
_encode = msgspec.msgpack.Encoder().encode


class _Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How far a stream has come: the number of its last batch upstream, and whether that one closed it."""

    number: int
    closed: bool = False


class ChunkSender(Protocol):
    """What a relay needs of `collector.send.forward.Forwarder`."""

    def send_packed(
        self, tag: str, packed: bytes, *, count: int, chunk: str, option: Mapping[str, Any] | None = None
    ) -> None:
        """Send a chunk once; the upstream has it on return. Raises `Overloaded`."""

    def close(self) -> None:
        """Close the connection."""


class Relay:
    """A `collector.store.Destination` that is another collector.

    Args:
        forwarder: to the upstream.
        root: the collector's folder, in which it keeps how far it has come, in `upstream/`.
        disk: the disk.
        tag: of the chunks.

    Raises:
        StateUnknown: what it kept does not read.
        OSError: the disk does not answer.
    """

    keeps_headers = False

    def __init__(self, forwarder: ChunkSender, *, root: Path, disk: Disk, tag: str) -> None:
        self._forwarder = forwarder
        self._disk = disk
        self._tag = tag
        self._folder = root / _FOLDER
        disk.make_directory(self._folder)
        self._marks = self._kept()

    def place(self, created: str) -> str:  # noqa: ARG002 - the upstream decides it
        """See `Destination.place`."""
        return ""

    def append(self, batch: Batch) -> None:
        """See `Destination.append`: the upstream has it on return, as far as its own acknowledgement goes (its setting `ack`)."""
        header = batch.signed.header
        stream = StreamId(header.stream)
        for part, (packed, count) in enumerate(_chunks(batch)):
            self._forwarder.send_packed(
                self._tag, packed, count=count, chunk=f"{batch.signed.digest}/canonical/{part}", option=CANONICAL_EVENTS
            )
        self._marks.pop(stream, None)
        self._marks[stream] = _Mark(header.number, header.closed)
        self._keep()

    def batch(self, stream: StreamId, number: int) -> SignedHeader | None:  # noqa: ARG002 - a Destination's
        """See `Destination.batch`. None: what is not acknowledged is sent again."""
        return None

    def acknowledged(self, stream: StreamId) -> int:
        """See `Destination.acknowledged`."""
        mark = self._marks.get(stream)
        return mark.number if mark is not None else 0

    def close(self) -> None:
        """See `Destination.close`."""
        self._forwarder.close()

    def _kept(self) -> dict[StreamId, _Mark]:
        path = self._folder / _FILE
        if not self._disk.exists(path):
            return {}
        marks = _read(self._disk.read(path), path)
        closed = [stream for stream, mark in marks.items() if mark.closed]
        for stream in closed[:-_CLOSED_KEPT]:
            del marks[stream]  # its folder has been gone for as many starts
        return {StreamId(stream): mark for stream, mark in marks.items()}

    def _keep(self) -> None:
        """Durable on return; a crash leaves what was kept before, or this."""
        new = self._folder / _NEW
        if self._disk.exists(new):
            self._disk.remove(new)
        self._disk.write_new(new, msgspec.json.encode(self._marks))
        self._disk.replace(new, self._folder / _FILE)
        self._disk.sync_directory(self._folder)


def open_relay(settings: RelaySettings, *, name: str, root: Path, disk: Disk | None = None) -> Relay:
    """The relay that the settings ask for; `name` is the collector's, `root` its folder. The upstream is asked when it is needed.

    Raises:
        Malformed: a file that holds no secret.
        StateUnknown: how far it has come does not read.
        OSError: a file that cannot be read, or holds no certificate or key.
    """
    tls = None
    if settings.tls:
        tls = client_tls(ca_file=settings.tls_ca, certificate=settings.tls_certificate, key=settings.tls_key)
    credentials = None
    if settings.shared_key_file:
        credentials = Credentials(
            hostname=name,
            shared_key=read_secret(settings.shared_key_file),
            user=settings.user,
            password=read_secret(settings.password_file) if settings.password_file else b"",
        )
    upstream = Upstream(
        host=settings.host,
        port=settings.port,
        tls=tls,
        server_name=settings.tls_server_name,
        credentials=credentials,
        compression=settings.compression,
        connect_seconds=_CONNECT_SECONDS,
        answer_seconds=_ANSWER_SECONDS,
    )
    return Relay(Forwarder(upstream), root=root, disk=disk or OsDisk(), tag=name)


def relays(root: Path) -> bool:
    """Whether the collector whose folder this is ships to another one. What a store does not have, it would miss for ever."""
    return (root / _FOLDER).is_dir()


def upstream_has(root: Path, stream: StreamId) -> int:
    """The number up to which the upstream has the stream's batches, as the collector's folder `root` says; 0 when it has none.

    Raises:
        StateUnknown: what the collector kept does not read.
        OSError: the file cannot be read.
    """
    path = root / _FOLDER / _FILE
    if not path.exists():
        return 0
    mark = _read(path.read_bytes(), path).get(stream)
    return mark.number if mark is not None else 0


def _read(data: bytes, path: Path) -> dict[str, _Mark]:
    try:
        return msgspec.json.decode(data, type=dict[str, _Mark])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise StateUnknown(f"{path}: how far the upstream has come cannot be read: {error}") from error


def _chunks(batch: Batch) -> list[tuple[bytes, int]]:
    """The batch's events as the entries of chunks, with their count: always the same ones for the same batch."""
    header = batch.signed.header
    time = event_time(parse_time(header.created))
    chunks: list[tuple[bytes, int]] = []
    packed = bytearray()
    count = at = 0
    for sequence, length in enumerate(batch.lengths, header.first):
        entry = _encode((time, Relayed(f"{header.stream}/{sequence}", batch.events[at : at + length])))
        if count and (len(packed) + len(entry) > _CHUNK_BYTES or count >= _CHUNK_EVENTS):
            chunks.append((bytes(packed), count))
            packed.clear()
            count = 0
        packed += entry
        count += 1
        at += length
    if count:
        chunks.append((bytes(packed), count))
    return chunks
