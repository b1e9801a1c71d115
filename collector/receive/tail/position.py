"""What a checkpoint remembers of a file, and its bytes: canonical JSON with its SHA-256 in front. Pure.

tallystick/tail/v1 SHA-256-OF-THE-REST LF
JSON LF
"""

import hashlib
import re
from typing import Annotated

import msgspec

from collector.errors import Malformed
from collector.receive.tail.formats import Form
from collector.receive.tail.messages import Cut, Position
from collector.receive.tail.prints import Mark, Prints

__all__ = ["MAX_CHECKPOINT_BYTES", "Remembered", "decode_checkpoint", "encode_checkpoint"]

MAX_CHECKPOINT_BYTES = 256 * 1024**2

_HEADER = re.compile(rb"tallystick/tail/v1 ([0-9a-f]{64})\n")
_Place = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Name = Annotated[str, msgspec.Meta(max_length=16_384)]


class Remembered(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file's contents.

    Attributes:
        identity: what their events are named after; 32 hex digits, by chance.
        entry: label of the configuration's entry that they are read by.
        path: the file's name when it was last seen; `real`: the same without symbolic links.
        device, inode: the file's numbers.
        form: how lines are read; empty when none has been.
        head_bytes, head, marks: see `collector.receive.tail.prints`.
        offset, ahead, cuts: see `collector.receive.tail.messages`.
        seen: when the file was last there, Unix time in seconds; a little older than true.
        ended: nothing more is expected of it.
    """

    identity: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    entry: _Name
    path: _Name
    real: _Name
    device: int
    inode: int
    form: Form | None = None
    head_bytes: _Place = 0
    head: str = ""
    marks: tuple[tuple[_Place, _Place, _Digest], ...] = ()
    offset: _Place = 0
    ahead: dict[Annotated[str, msgspec.Meta(max_length=16)], _Place] = {}
    cuts: tuple[tuple[Annotated[str, msgspec.Meta(max_length=16)], _Place], ...] = ()
    seen: _Place = 0
    ended: bool = False

    def prints(self) -> Prints:
        """The fingerprints."""
        return Prints(head_bytes=self.head_bytes, head=self.head, marks=tuple(Mark(*mark) for mark in self.marks))

    def position(self) -> Position:
        """How far its events are taken."""
        return Position(offset=self.offset, ahead=self.ahead, cuts=tuple(Cut(*cut) for cut in self.cuts))


class _Checkpoint(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    begun: tuple[_Name, ...]
    files: tuple[Remembered, ...]


_encode = msgspec.json.Encoder(order="sorted").encode
_decode = msgspec.json.Decoder(_Checkpoint).decode


def encode_checkpoint(files: tuple[Remembered, ...], begun: tuple[str, ...]) -> bytes:
    """The checkpoint's bytes. `begun`: labels of the entries that have been used before."""
    body = _encode(_Checkpoint(begun=begun, files=files)) + b"\n"
    return b"tallystick/tail/v1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body


def decode_checkpoint(data: bytes) -> tuple[tuple[Remembered, ...], tuple[str, ...]]:
    """The files and the labels of a checkpoint's bytes.

    Raises:
        Malformed: they are none, or not as they were written.
    """
    header = _HEADER.match(data)
    if header is None:
        raise Malformed("not a checkpoint of the tail", label="bad_checkpoint")
    body = data[header.end() :]
    if hashlib.sha256(body).hexdigest().encode() != header[1]:
        raise Malformed("its SHA-256 is another", label="bad_checkpoint")
    try:
        checkpoint = _decode(body)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not a checkpoint of the tail: {error}", label="bad_checkpoint") from error
    return checkpoint.files, checkpoint.begun
