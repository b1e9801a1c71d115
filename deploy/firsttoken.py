"""The token that is made at the first start of an embedded ledger's API, so that its owner can open the pages at once.

It stands in a file that the owner of the data folder alone can read, and nowhere else: not in a log, an address or an argument. `tokens.toml` has
its hash, as of every other. It is made once: where there is a file of tokens already, even an empty one, somebody has decided who may ask.
"""

import os
from pathlib import Path

from audit_api.auth import TokenRecord, TokensError, hash_token, new_token
from collector.event import format_time
from collector.receive.listening import is_this_machine
from deploy.config import Config
from deploy.places import Places
from deploy.storing import is_embedded
from deploy.tokens import change_tokens

__all__ = ["OWNER", "make_first_token", "wants_first_token"]

OWNER = "owner"
"""Whose it is, on record and for `tally token revoke`."""

_MAX_BYTES = 1_000


def wants_first_token(config: Config) -> bool:
    """Whether a ledger of this configuration gets one: it lies in files, is served to this machine alone, and asks no identity provider."""
    api = config.audit_api
    return is_embedded(config) and is_this_machine(api.host) and not (api.oidc.issuer or api.public_url)


def make_first_token(places: Places, *, now_ns: int) -> Path | None:
    """Make it, unless there is a file of tokens; gives the file that it stands in, or None.

    Raises:
        TokensError, OSError: one of the files cannot be read or written.
    """
    if places.tokens.exists():
        return None
    # The token before its hash: a crash in between leaves a token that opens nothing yet, and the next start takes it up.
    token = _kept(places.first_token)
    record = TokenRecord(
        principal=OWNER,
        roles=["auditor", "admin"],
        sha256=hash_token(token),
        created=format_time(now_ns),
        note="made at the first start",
    )
    added: list[TokenRecord] = []

    def add(records: list[TokenRecord]) -> list[TokenRecord]:
        # of API processes that start together one makes it; the others have read the same file
        added.extend([record] if not records else [])
        return [*records, *added]

    change_tokens(places.tokens, add)
    return places.first_token if added else None


def _kept(file: Path) -> str:
    """The token in the file, a new one if there is none; durable on return."""
    scratch = file.with_name(f"{file.name}.{os.urandom(8).hex()}.new")
    fd = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="ascii") as stream:
        stream.write(f"{new_token()}\n")
        stream.flush()
        os.fsync(stream.fileno())
    try:
        os.link(scratch, file)  # whole or not at all, and the first one stays
    except FileExistsError:
        pass
    finally:
        scratch.unlink()
    folder = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    with file.open(encoding="ascii") as stream:
        token = stream.read(_MAX_BYTES).strip()
    if not token:
        raise TokensError(f"{file} is empty: remove it")
    return token
