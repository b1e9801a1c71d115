"""Where the log lies, as the configuration says: the one place that opens it, for its writer and for every reader."""

import os
from pathlib import Path

from correlator.shards import WHOLE, Shard
from correlator.storage import LogStorage
from correlator.storage.file import FileStorage
from deploy.config import SCHEMES, Config, ConfigError
from deploy.places import Places

__all__ = ["is_object_url", "log_storage", "storage_at"]


def log_storage(config: Config, shard: Shard = WHOLE) -> LogStorage:
    """The storage of the configured log, or of a shard's: its folder in the data folder, or below `config.log`.

    A ledger that is cut has in `WHOLE`'s place its joint statement, as the head, and nothing else.

    Raises:
        ConfigError: the extra that talks to object storage is not installed.
        StateUnknown: the driver cannot make anything of the URL or the environment.
    """
    if not config.log:
        return FileStorage(Places(Path(config.data), shard.name).log)
    return storage_at(shard.origin(config.log.rstrip("/")) if shard.name else config.log, endpoint=config.log_endpoint)


def is_object_url(text: str) -> bool:
    """Whether `text` is the URL of a place in object storage."""
    return text.startswith(tuple(f"{scheme}://" for scheme in SCHEMES))


def storage_at(url: str, *, endpoint: str = "") -> LogStorage:
    """The log at a URL of object storage; raises as `log_storage`.

    Args:
        url: ``s3://``, ``gs://`` or ``az://``.
        endpoint: of an S3-compatible server; empty for ``$AWS_ENDPOINT_URL``, or the cloud's own.
    """
    try:
        from correlator.storage.bucket import bucket_at
        from correlator.storage.objects import ObjectStorage
    except ImportError as error:
        raise ConfigError(
            f"{url}: object storage needs the extra `objects`: pip install 'tallystick[objects]'"
        ) from error
    # The driver reads this variable, too, but then refuses http:// whatever the environment says.
    named = os.environ.get("AWS_ENDPOINT_URL", "") if url.startswith("s3://") else ""
    return ObjectStorage(bucket_at(url, endpoint=endpoint or named))
