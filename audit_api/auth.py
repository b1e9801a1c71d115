"""Who is asking? Bearer tokens (RFC 6750) with roles, from a file that holds their hashes alone.

`Authenticator` is the seam for tokens of ours; those of an identity provider are `audit_api.identity.door.Bearers`'.

A token is 32 random bytes, so its plain SHA-256 is enough: there is nothing to guess that salt or slow hashing would make
harder. Every hash is compared, in constant time, whether one before it matched or not.
"""

import base64
import hmac
import os
import re
import stat
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Literal, Protocol, get_args

import msgspec

from audit_api.identity.scope import EVERYTHING, RowScope
from collector.errors import Malformed, TallyError
from collector.event import format_time, parse_time

__all__ = [
    "ANONYMOUS",
    "OWN_PREFIX",
    "ROLES",
    "Authenticator",
    "Principal",
    "Role",
    "TokenFile",
    "TokenRecord",
    "TokensError",
    "hash_token",
    "new_token",
    "parse_tokens",
    "render_tokens",
]

Role = Literal["auditor", "sre", "admin"]
ROLES: tuple[Role, ...] = get_args(Role)

ANONYMOUS = "anonymous"
"""The principal of requests without a valid token. No token can be its."""

TOKEN_BYTES = 32
MAX_CREDENTIALS = 512
MAX_FILE_BYTES = 1 << 20
OWN_PREFIX = "tally_"
"""With which every token of ours begins."""
_BEARER = re.compile(r"[Bb]earer +([A-Za-z0-9._~+/-]{1,400}=*)", re.ASCII)
_PRINCIPAL = r"^[A-Za-z0-9][A-Za-z0-9._@-]{0,99}$"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """Who asks, in which roles, and which part of the ledger they may see."""

    name: str
    roles: frozenset[Role]
    scope: RowScope = EVERYTHING


class Authenticator(Protocol):
    """Tells who a request is from."""

    def authenticate(self, credentials: str) -> Principal | None:
        """The principal of an ``Authorization`` header's value; None when it proves nobody.

        Raises:
            TallyError: it cannot be told now; nobody is let in.
        """

    def lasting(self, credentials: str) -> Callable[[], Principal | None] | None:
        """For a session that these credentials open: tells whom it stands for from then on. None when they prove nobody.

        What it gives keeps nothing that would open another session, and raises as `authenticate` does.
        """

    def principals(self) -> Sequence[Principal]:
        """Everybody who is known here, by name; empty where that is known elsewhere."""


class TokensError(TallyError):
    """The file of tokens cannot be used; the message says what is wrong and never holds a hash."""


class TokenRecord(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One token in ``tokens.toml``.

    Attributes:
        principal: whose token it is: letters, digits, ``.``, ``_``, ``@`` and ``-``.
        roles: what it allows.
        sha256: SHA-256 of the token's text, 64 hex digits.
        created: when it was made, RFC 3339.
        expires: from when on it is worth nothing, RFC 3339; empty: never.
        note: for people.
        tenants, services: of which trails are seen; empty: of all (docs/identity.md, Scopes).
        since, until: trails whose times meet [since, until) are seen, RFC 3339; empty: no bound.
    """

    principal: Annotated[str, msgspec.Meta(pattern=_PRINCIPAL)]
    roles: Annotated[list[Role], msgspec.Meta(min_length=1)]
    sha256: Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
    created: str = ""
    expires: str = ""
    note: str = ""
    tenants: list[str] = []
    services: list[str] = []
    since: str = ""
    until: str = ""

    @property
    def scope(self) -> RowScope:
        """What of the ledger it shows; raises `Malformed` when a time is none."""
        return RowScope(
            tenants=frozenset(self.tenants) or None,
            services=frozenset(self.services) or None,
            since=format_time(parse_time(self.since)) if self.since else "",
            until=format_time(parse_time(self.until)) if self.until else "",
        )


class _Tokens(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    tokens: list[TokenRecord] = []


def new_token(random_bytes: Callable[[int], bytes] = os.urandom) -> str:
    """A token to be given to its principal once; only `hash_token` of it is kept."""
    return OWN_PREFIX + base64.urlsafe_b64encode(random_bytes(TOKEN_BYTES)).decode("ascii").rstrip("=")


def hash_token(token: str) -> str:
    """What is kept of a token: SHA-256 of its text, 64 hex digits."""
    return sha256(token.encode("utf-8")).hexdigest()


def parse_tokens(text: str) -> list[TokenRecord]:
    """The tokens of a ``tokens.toml``.

    Raises:
        TokensError: it is not one.
    """
    try:
        records = msgspec.convert(tomllib.loads(text), _Tokens).tokens
    except (tomllib.TOMLDecodeError, msgspec.ValidationError, RecursionError, ValueError) as error:
        raise TokensError(f"tokens.toml: {error}") from error
    for at, record in enumerate(records, 1):
        if record.principal == ANONYMOUS:
            raise TokensError(f"tokens.toml: token {at}: {ANONYMOUS} is the name of those without a token")
        if not all((*record.tenants, "x")) or not all((*record.services, "x")):
            raise TokensError(f"tokens.toml: token {at}: a tenant or service without a name")
        for name in ("created", "expires", "since", "until"):
            value = getattr(record, name)
            try:
                if value:
                    parse_time(value)
            except Malformed as error:
                raise TokensError(f"tokens.toml: token {at}: {name}: {error}") from error
    hashes = [record.sha256 for record in records]
    if len(set(hashes)) != len(hashes):
        raise TokensError("tokens.toml: two entries are of the same token")
    return records


def render_tokens(records: Sequence[TokenRecord]) -> str:
    """The text of a ``tokens.toml``: write it to a new file of mode 0600 and rename that over the old one."""
    lines = [
        "# Tokens of the API, hashed: who holds one cannot be told from here. `tally token` adds and removes them.\n"
    ]
    for record in records:
        lines.append("\n[[tokens]]\n")
        for name, value in msgspec.structs.asdict(record).items():
            if value:
                # a JSON string or list of strings is a TOML one, but for DEL, which msgspec does not escape
                text = msgspec.json.encode(value).decode("utf-8").replace("\x7f", "\\u007f")
                lines.append(f"{name} = {text}\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    digest: bytes
    principal: Principal
    expires_ns: int


class TokenFile:
    """`Authenticator` over ``tokens.toml``; reads it again when it has changed, so that a revoked token is so at once.

    A file that is missing, writable by others or not understood lets nobody in.

    Args:
        path: the file.
        clock: Unix time in nanoseconds, for tokens that expire.
    """

    def __init__(self, path: Path, *, clock: Callable[[], int]) -> None:
        self._path = path
        self._clock = clock
        self._seen: tuple[int, ...] = ()
        self._known: tuple[_Known, ...] = ()

    def authenticate(self, credentials: str) -> Principal | None:
        """See `Authenticator.authenticate`; raises `TokensError`."""
        known = self._read()
        digest = _digest_of(credentials)
        return None if digest is None else self._of(digest, known)

    def lasting(self, credentials: str) -> Callable[[], Principal | None] | None:
        """See `Authenticator.lasting`: a token taken away, or one that expires, ends its sessions; raises `TokensError`."""
        if self.authenticate(credentials) is None:
            return None
        digest = _digest_of(credentials)
        assert digest is not None
        return lambda: self._of(digest, self._read())

    def _of(self, digest: bytes, known: Sequence[_Known]) -> Principal | None:
        match: _Known | None = None
        for one in known:  # all of them, always
            if hmac.compare_digest(one.digest, digest):
                match = one
        if match is None or (match.expires_ns and match.expires_ns <= self._clock()):
            return None
        return match.principal

    def principals(self) -> Sequence[Principal]:
        """See `Authenticator.principals`; raises `TokensError`."""
        roles: dict[str, frozenset[Role]] = {}
        for one in self._read():
            roles[one.principal.name] = roles.get(one.principal.name, frozenset()) | one.principal.roles
        return [Principal(name=name, roles=roles[name]) for name in sorted(roles)]

    def _read(self) -> tuple[_Known, ...]:
        try:
            with self._path.open("rb") as file:
                status = os.fstat(file.fileno())
                seen = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
                if seen == self._seen:
                    return self._known
                if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
                    raise TokensError(f"{self._path.name} may be written by others: nobody is let in (chmod 600 it)")
                text = file.read(MAX_FILE_BYTES + 1).decode("utf-8")
        except OSError as error:
            raise TokensError(f"{self._path.name} cannot be read: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise TokensError(f"{self._path.name} is not UTF-8") from error
        if len(text) > MAX_FILE_BYTES:
            raise TokensError(f"{self._path.name} is longer than {MAX_FILE_BYTES} bytes")
        self._known = tuple(
            _Known(
                digest=bytes.fromhex(record.sha256),
                principal=Principal(name=record.principal, roles=frozenset(record.roles), scope=record.scope),
                expires_ns=parse_time(record.expires) if record.expires else 0,
            )
            for record in parse_tokens(text)
        )
        self._seen = seen
        return self._known


def _digest_of(credentials: str) -> bytes | None:
    """Of the token in an Authorization header's value; None when there is none."""
    found = _BEARER.fullmatch(credentials) if len(credentials) <= MAX_CREDENTIALS else None
    return None if found is None else sha256(found.group(1).encode("ascii")).digest()
