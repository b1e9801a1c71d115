"""Services that send to sidecars and remember what was acknowledged: Fluent Forward with acks, and JSON lines over HTTP.

Each sends its events one group after the other, in order, and each group again until it is acknowledged.
"""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

import msgpack

__all__ = ["Senders", "Told"]

_GROUP_EVENTS = 10
_PADDING = "the balance was checked and the amount reserved; " * 8  # some 400 B, as a real log line with its fields
_ANSWER_SECONDS = 20.0  # longer than a sidecar is patient
_MOST_WAIT_SECONDS = 1.0  # of what Retry-After asks for: a drill presses harder than it is asked to


@dataclass(slots=True)
class Told:
    """What the senders heard. Thread-safe as a whole through `lock`.

    Attributes:
        acknowledged: the names of acknowledged events.
        refusals: answers that said "later", by kind: ``503`` with Retry-After, ``no ack`` (a Forward connection that closed).
        retry_after_seconds: what Retry-After asked for, each value once.
        reasons: what the refusals said.
        unheard: sends without any answer: nobody listened, or the process died.
        odd: answers that nobody expects.
    """

    acknowledged: set[str] = field(default_factory=set)
    refusals: Counter[str] = field(default_factory=Counter)
    retry_after_seconds: set[int] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    unheard: int = 0
    odd: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


class Senders:
    """For each sidecar one sender of each kind.

    Args:
        address: gives where a sidecar listens for ``forward`` or ``http``; empty while it does not.
        sidecars: their names.
        pause_seconds: between a sender's groups.
    """

    def __init__(
        self, address: Callable[[str, str], str], sidecars: Sequence[str], *, pause_seconds: float = 0.05
    ) -> None:
        self.told = Told()
        self._address = address
        self._pause_seconds = pause_seconds
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._send_for_ever, args=(name, use, send), name=f"{name}-{use}")
            for name in sidecars
            for use, send in (("forward", self._forward), ("http", self._http))
        ]

    @property
    def acknowledged(self) -> int:
        """How many events are acknowledged by now."""
        with self.told.lock:
            return len(self.told.acknowledged)

    @property
    def refused(self) -> int:
        """How many groups were told "later" by now."""
        with self.told.lock:
            return self.told.refusals.total()

    @contextmanager
    def running(self) -> Iterator[Self]:
        """Send for the length of the block; then each sender's last group is either acknowledged or given up."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()

    def _send_for_ever(self, sidecar: str, use: str, send: Callable[[str, Sequence[str]], float | None]) -> None:
        at = 0
        while not self._stop.is_set():
            names = [f"{sidecar}/{use}/{at + more}" for more in range(_GROUP_EVENTS)]
            at += _GROUP_EVENTS
            while (wait_seconds := self._sent(sidecar, use, send, names)) is not None:
                if self._stop.wait(min(wait_seconds, _MOST_WAIT_SECONDS)):
                    return
            with self.told.lock:
                self.told.acknowledged.update(names)
            self._stop.wait(self._pause_seconds)

    def _sent(
        self, sidecar: str, use: str, send: Callable[[str, Sequence[str]], float | None], names: Sequence[str]
    ) -> float | None:
        """None when acknowledged, else how long to wait."""
        address = self._address(sidecar, use)
        if address:
            try:
                return send(address, names)
            except (OSError, http.client.HTTPException):
                pass  # nobody listens, or it died in the middle
        with self.told.lock:
            self.told.unheard += 1
        return 0.1

    def _forward(self, address: str, names: Sequence[str]) -> float | None:
        entries = [[int(time.time()), _record(name)] for name in names]
        message = msgpack.packb(["shop", entries, {"chunk": names[0], "size": len(names)}])
        host, _, port = address.rpartition(":")
        with socket.create_connection((host, int(port)), timeout=_ANSWER_SECONDS) as connection:
            connection.sendall(message)
            unpacker = msgpack.Unpacker()
            while data := connection.recv(4_096):
                unpacker.feed(data)
                for answer in unpacker:
                    if answer == {"ack": names[0]}:
                        return None
                    self._odd(f"Forward: {answer!r}")
        self._later("no ack", "the connection was closed without an ack")
        return 0.1

    def _http(self, address: str, names: Sequence[str]) -> float | None:
        body = "".join(json.dumps(_record(name)) + "\n" for name in names)
        host, _, port = address.removeprefix("http://").rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=_ANSWER_SECONDS)
        try:
            headers = {"content-type": "application/x-ndjson", "idempotency-key": names[0]}
            connection.request("POST", "/v1/events", body.encode(), headers)
            answer = connection.getresponse()
            said = json.loads(answer.read())
        finally:
            connection.close()
        if answer.status == http.client.OK and said["stored"] + said["duplicates"] == len(names):
            return None
        after = answer.headers.get("retry-after", "")
        if answer.status == http.client.SERVICE_UNAVAILABLE and after.isdigit():
            self._later("503", said["detail"])
            with self.told.lock:
                self.told.retry_after_seconds.add(int(after))
            return float(after)
        self._odd(f"HTTP: {answer.status} {said!r}")
        return _MOST_WAIT_SECONDS

    def _later(self, kind: str, reason: str) -> None:
        with self.told.lock:
            self.told.refusals[kind] += 1
            self.told.reasons[reason] += 1

    def _odd(self, what: str) -> None:
        with self.told.lock:
            self.told.odd.append(what)


def _record(name: str) -> dict[str, str]:
    return {"message": name, "payment_id": f"p-{name[:-1]}", "service": name.partition("/")[0], "note": _PADDING}
