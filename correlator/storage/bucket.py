"""A bucket: the few requests to object storage that a log needs, over obstore, each one put, get, delete or list.

`Bucket` is the seam that fault tests break: a reply that is lost, a put that lands late, a request that fails. What the errors mean:

    Refused        the condition of a put did not hold, as the store answered; this attempt changed nothing. An earlier attempt of the
                   same put, whose reply was lost and which the driver sent again, may have been done all the same
    Overloaded     a get or list was not answered: nothing was done
    StateUnknown   a put or delete was not answered: it may have been done, or be done later. Or what no waiting mends: no
                   bucket, no permission
    NotFound       the store answered that there is no such object

Which stores can do what is needed: an S3 put with ``If-None-Match: *`` and ``If-Match`` (AWS since November 2024; MinIO, Ceph, R2), GCS by
generation, Azure by ETag, and obstore's own `MemoryStore`. obstore's `LocalStore` cannot: files have `correlator.storage.file`.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
from obstore.store import from_url

from correlator.errors import NotFound, Overloaded, StateUnknown, TallyError

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion
    from obstore.store import ClientConfig, ObjectStore, RetryConfig, S3Config

__all__ = ["ABSENT", "Absent", "Bucket", "Found", "ObstoreBucket", "Refused", "Version", "bucket_at"]

TIMEOUT = timedelta(seconds=15)
"""Of one request, from its beginning to its end."""

RETRY_TIMEOUT = timedelta(seconds=20)
"""After which the driver sends nothing again."""

_NO_BUCKET = re.compile(r"NoSuchBucket|ContainerNotFound|specified (?:bucket|container) does not exist", re.IGNORECASE)


class Refused(TallyError):
    """The condition of a put did not hold: something else stands there, or stands there already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """One content of one object, as the store names it: by ETag (S3, Azure, memory) or generation (GCS)."""

    e_tag: str | None
    number: str | None


class Absent:
    """The condition that no object stands there."""


ABSENT = Absent()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An object's bytes, and which version they are."""

    data: bytes
    version: Version


class Bucket(Protocol):
    """Objects by path, under one prefix; read after write, as all the stores named above give it."""

    def get(self, path: str) -> Found:
        """The object. Raises `NotFound`, `Overloaded`, `StateUnknown`."""

    def put(self, path: str, data: bytes, *, over: Version | Absent | None = None) -> Version:
        """Write an object whole, durable on return; `over` is what must stand there, None for whatever. Raises `Refused`, `StateUnknown`."""

    def delete(self, path: str) -> None:
        """Remove an object; fine if there is none. Raises `StateUnknown`."""

    def paths(self, folder: str) -> Iterator[str]:
        """The paths of all objects below `folder`, in no particular order. Raises `Overloaded`, `StateUnknown`."""


class ObstoreBucket:
    """A `Bucket` on an obstore store, which carries the prefix. For several threads.

    Args:
        store: such as `bucket_at` makes, or obstore's `MemoryStore`.
    """

    def __init__(self, store: "ObjectStore") -> None:
        self._store = store

    def get(self, path: str) -> Found:
        """See `Bucket.get`."""
        with _seam(path, reading=True):
            answer = obstore.get(self._store, path)
            data = bytes(answer.bytes())
            meta = answer.meta
            return Found(data=data, version=Version(e_tag=meta["e_tag"], number=meta["version"]))

    def put(self, path: str, data: bytes, *, over: Version | Absent | None = None) -> Version:
        """See `Bucket.put`."""
        mode: PutMode = "overwrite"
        if isinstance(over, Absent):
            mode = "create"
        elif over is not None:
            wanted: UpdateVersion = {}
            if over.e_tag is not None:
                wanted["e_tag"] = over.e_tag
            if over.number is not None:
                wanted["version"] = over.number
            mode = wanted
        with _seam(path, reading=False):
            # Never in parts: an upload of several parts is not conditional, and leaves remains when it breaks off.
            answer = obstore.put(self._store, path, data, mode=mode, use_multipart=False)
            return Version(e_tag=answer["e_tag"], number=answer["version"])

    def delete(self, path: str) -> None:
        """See `Bucket.delete`."""
        try:
            with _seam(path, reading=False):
                obstore.delete(self._store, path)
        except NotFound:
            pass  # some stores say so

    def paths(self, folder: str) -> Iterator[str]:
        """See `Bucket.paths`."""
        with _seam(folder, reading=True):
            found = [meta["path"] for chunk in obstore.list(self._store, folder) for meta in chunk]
        return iter(found)


@contextmanager
def _seam(path: str, *, reading: bool) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        if _NO_BUCKET.search(str(error)):
            raise StateUnknown(f"{path}: there is no such bucket ({_first_line(error)})") from error
        raise NotFound(f"{path} is not there") from error
    except (AlreadyExistsError, PreconditionError) as error:
        raise Refused(f"{path}: {_first_line(error)}") from error
    except (BaseError, OSError, ValueError) as error:
        if reading and not _NO_BUCKET.search(str(error)):
            raise Overloaded(f"{path}: object storage does not answer: {_first_line(error)}") from error
        raise StateUnknown(f"{path}: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    """What happened, without the driver's debug text, which follows after an empty line."""
    return (str(error).partition("\n")[0] or type(error).__name__)[:500]


def bucket_at(url: str, *, endpoint: str = "") -> ObstoreBucket:
    """The bucket of a URL: ``s3://bucket/prefix``, ``gs://bucket/prefix`` or ``az://container/prefix``.

    Credentials come from the environment, and from the files that it names (docs/operating.md).

    Args:
        url: of the bucket, with the prefix below which everything lies.
        endpoint: of an S3-compatible server, as a URL; empty for the cloud's own.

    Raises:
        StateUnknown: the driver cannot make anything of it.
    """
    config: S3Config = {"endpoint": endpoint} if endpoint else {}
    client: ClientConfig = {"timeout": TIMEOUT}
    if endpoint.startswith("http://"):
        client["allow_http"] = True
    retry: RetryConfig = {"max_retries": 5, "retry_timeout": RETRY_TIMEOUT}
    try:
        store = from_url(url, config=config, client_options=client, retry_config=retry)
    except (BaseError, ValueError) as error:
        raise StateUnknown(f"{url}: {_first_line(error)}") from error
    return ObstoreBucket(store)
