"""A producer of Pulsar's binary protocol that lies: for messages that no client library would send.

Frames: https://pulsar.apache.org/docs/4.0.x/developing-binary-protocol/. Commands are Protocol Buffers, written here field by field.
"""

from __future__ import annotations

import socket
import struct
import time

from aiokafka.record.util import calc_crc32c

from tests.servers.pulsar import Pulsar

__all__ = ["send_broken_compression"]

_CONNECT, _PRODUCER, _SEND = 2, 5, 6
_CONNECTED, _SEND_RECEIPT, _PRODUCER_SUCCESS = 3, 7, 17
_LZ4 = 1
_MAGIC = 0x0E01


def send_broken_compression(server: Pulsar, topic: str, payload: bytes) -> None:
    """Put a message into a topic that says it is LZ4, and is not; returns when the broker has it.

    The topic is loaded: somebody has produced to it before.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
        connection.sendall(_frame(_command(_CONNECT, _text(1, b"tests") + _number(4, 19))))
        assert _answer(connection) == _CONNECTED
        place = f"persistent://public/default/{topic}".encode()
        producer = _text(1, place) + _number(2, 1) + _number(3, 1) + _text(4, b"liar")
        connection.sendall(_frame(_command(_PRODUCER, producer)))
        assert _answer(connection) == _PRODUCER_SUCCESS
        metadata = _text(1, b"liar") + _number(2, 0) + _number(3, round(time.time() * 1000))
        metadata += _number(8, _LZ4) + _number(9, 1_000)
        covered = struct.pack(">I", len(metadata)) + metadata + payload
        checked = struct.pack(">HI", _MAGIC, calc_crc32c(covered)) + covered
        connection.sendall(_frame(_command(_SEND, _number(1, 1) + _number(2, 0)), checked))
        assert _answer(connection) == _SEND_RECEIPT


def _frame(command: bytes, payload: bytes = b"") -> bytes:
    return struct.pack(">II", 4 + len(command) + len(payload), len(command)) + command + payload


def _answer(connection: socket.socket) -> int:
    """The type of the next command."""
    with connection.makefile("rb") as stream:
        (size,) = struct.unpack(">I", stream.read(4))
        command = stream.read(size)[4:]
    assert command[0] == 0x08, command  # field 1, a number
    return command[1]


def _command(kind: int, fields: bytes) -> bytes:
    return _number(1, kind) + _text(kind, fields)  # a command stands in the field of its type's number


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _text(field: int, value: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(value)) + value


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes(found) + bytes([value])
