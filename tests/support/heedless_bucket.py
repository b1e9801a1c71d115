"""Buckets that take a put whatever its condition, in memory: some S3 servers are so, and a log on one would fork."""

from __future__ import annotations

from obstore.store import MemoryStore

from correlator.storage.bucket import ABSENT, Absent, ObstoreBucket, Version


class Heedless:
    """A server that takes every put."""

    def __init__(self) -> None:
        self._bucket = ObstoreBucket(MemoryStore())
        self.get, self.delete, self.paths = self._bucket.get, self._bucket.delete, self._bucket.paths

    def put(self, path: str, data: bytes, *, over: Version | Absent | None = None) -> Version:
        del over  # this is what is wrong with it
        return self._bucket.put(path, data)


class CreateOnly(Heedless):
    """One that knows ``If-None-Match`` alone."""

    def put(self, path: str, data: bytes, *, over: Version | Absent | None = None) -> Version:
        return self._bucket.put(path, data, over=over if over is ABSENT else None)
