"""A zip that has one spelling: what packs to these bytes is this content, and nothing else hides beside it. Pure.

Any zip program opens it. Of the zip format's many freedoms none is used: members follow each other without a hole from the
first byte on, each deflated, with fixed time and flags, no extra fields, no comments, no encryption, no zip64. So `unpack`
can refuse whatever differs; a lenient reader would pass over bytes that another program shows (docs/format-bundle.md,
"Container").

Specification: PKWARE APPNOTE.TXT 6.3.10, sections 4.3.7, 4.3.12, 4.3.16.
"""

import re
import struct
import zlib
from collections.abc import Mapping

from correlator.errors import VerificationError

__all__ = ["MAX_ARCHIVE_BYTES", "MAX_MEMBERS", "MAX_MEMBER_BYTES", "pack", "unpack"]

MAX_ARCHIVE_BYTES = 256 << 20
"""Largest archive that is written or read."""

MAX_MEMBER_BYTES = 512 << 20
"""Most bytes that all members together may unpack to."""

MAX_MEMBERS = 16

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)
_LOCAL = struct.Struct("<4s5H3I2H")
_CENTRAL = struct.Struct("<4s6H3I5H2I")
_END = struct.Struct("<4s4H2IH")
_VERSION = 20
_DEFLATED = 8
_TIME = 0
_DATE = 0x21  # 1980-01-01, the least that zip can say: the same content gives the same bytes


def pack(members: Mapping[str, bytes]) -> bytes:
    """The archive of these members, in their order.

    Raises:
        ValueError: a name that the format does not allow, too many members, or too large.
    """
    if not 1 <= len(members) <= MAX_MEMBERS:
        raise ValueError(f"{len(members)} members: 1 to {MAX_MEMBERS} are allowed")
    if sum(map(len, members.values())) > MAX_MEMBER_BYTES:
        raise ValueError(f"more than {MAX_MEMBER_BYTES} bytes of content")
    parts: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, data in members.items():
        if _NAME.fullmatch(name) is None:
            raise ValueError(f"{name!r} cannot name a member")
        packer = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
        packed = packer.compress(data) + packer.flush()
        local, central = _headers(name.encode("ascii"), zlib.crc32(data), len(packed), len(data), offset)
        parts += (local, packed)
        directory.append(central)
        offset += len(local) + len(packed)
    tail = b"".join(directory)
    archive = b"".join([*parts, tail, _end(len(members), len(tail), offset)])
    if len(archive) > MAX_ARCHIVE_BYTES:
        raise ValueError(f"an archive of {len(archive)} bytes: at most {MAX_ARCHIVE_BYTES} are allowed")
    return archive


def unpack(data: bytes) -> dict[str, bytes]:
    """The members of an archive, by name, in their order; never more than the limits above.

    Raises:
        VerificationError: it is not exactly what `pack` could have written (but for the way in which a member is deflated).
    """
    if len(data) > MAX_ARCHIVE_BYTES:
        raise VerificationError(f"the bundle has {len(data)} bytes, at most {MAX_ARCHIVE_BYTES} are read")
    if len(data) < _END.size:
        raise VerificationError("the bundle is no zip archive: it is too short")
    end = data[-_END.size :]
    fields = _END.unpack(end)
    count, directory_bytes, directory_at = fields[4], fields[5], fields[6]
    if end != _end(count, directory_bytes, directory_at):
        raise VerificationError("the bundle does not end as a zip archive of its format ends: it was cut or changed")
    if not 1 <= count <= MAX_MEMBERS or directory_at + directory_bytes != len(data) - _END.size:
        raise VerificationError("the zip directory of the bundle is not where its end says")
    members: dict[str, bytes] = {}
    offset, at, room = 0, directory_at, MAX_MEMBER_BYTES
    for number in range(1, count + 1):
        name, member, offset, at = _member(data, number, offset=offset, at=at, directory_at=directory_at, room=room)
        if name in members:
            raise VerificationError(f"the bundle holds two members {name}")
        members[name] = member
        room -= len(member)
    if offset != directory_at or at != len(data) - _END.size:
        raise VerificationError("the bundle holds bytes that belong to no member")
    return members


def _member(
    data: bytes, number: int, *, offset: int, at: int, directory_at: int, room: int
) -> tuple[str, bytes, int, int]:
    """Member `number`: its name, content, the offset after it and the place in the directory after its record."""
    what = f"member {number} of the bundle"
    if at + _CENTRAL.size > len(data) - _END.size:
        raise VerificationError(f"{what} has no record in the zip directory")
    fields = _CENTRAL.unpack_from(data, at)
    crc, packed_bytes, plain_bytes, name_bytes = fields[7:11]
    raw_name = data[at + _CENTRAL.size : at + _CENTRAL.size + name_bytes]
    try:
        name = raw_name.decode("ascii")
    except UnicodeDecodeError as error:
        raise VerificationError(f"{what} has a name that is not ASCII") from error
    if _NAME.fullmatch(name) is None:
        raise VerificationError(f"{what} has a name that no member has")
    local, central = _headers(raw_name, crc, packed_bytes, plain_bytes, offset)
    start = offset + len(local)
    if data[at : at + len(central)] != central:
        raise VerificationError(f"{name}: its record in the zip directory is not as the format demands")
    if data[offset:start] != local:
        raise VerificationError(f"{name}: its zip header is not as the format demands, or differs from the directory")
    if start + packed_bytes > directory_at:
        raise VerificationError(f"{name}: it reaches into the zip directory")
    if plain_bytes > room:
        raise VerificationError(f"{name}: the bundle unpacks to more than {MAX_MEMBER_BYTES} bytes")
    plain = _inflate(name, data[start : start + packed_bytes], plain_bytes)
    if zlib.crc32(plain) != crc:
        raise VerificationError(f"{name}: its checksum differs: it was changed")
    return name, plain, start + packed_bytes, at + len(central)


def _inflate(name: str, packed: bytes, plain_bytes: int) -> bytes:
    unpacker = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        # one byte more than stated, so that a member that lies about its length is caught and costs no memory
        plain = unpacker.decompress(packed, plain_bytes + 1)
    except zlib.error as error:
        raise VerificationError(f"{name}: it cannot be unpacked: {error}") from error
    if len(plain) != plain_bytes or not unpacker.eof or unpacker.unused_data or unpacker.unconsumed_tail:
        raise VerificationError(f"{name}: it does not unpack to the {plain_bytes} bytes that the directory states")
    return plain


def _headers(name: bytes, crc: int, packed_bytes: int, plain_bytes: int, offset: int) -> tuple[bytes, bytes]:
    """The local header and the directory record: every byte follows from these five values."""
    shared = (_VERSION, 0, _DEFLATED, _TIME, _DATE, crc, packed_bytes, plain_bytes, len(name), 0)
    local = _LOCAL.pack(b"PK\x03\x04", *shared) + name
    central = _CENTRAL.pack(b"PK\x01\x02", _VERSION, *shared, 0, 0, 0, 0, offset) + name
    return local, central


def _end(count: int, directory_bytes: int, directory_at: int) -> bytes:
    return _END.pack(b"PK\x05\x06", 0, 0, count, count, directory_bytes, directory_at, 0)
