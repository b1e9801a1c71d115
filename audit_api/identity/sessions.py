"""Browser sessions: an opaque id in a cookie, all else kept here, in memory, bounded in number and age.

Why not a signed cookie: a log-out, a revoked token or a changed role must count at once, and there is no key to keep and rotate
(docs/decisions/0036-sessions-live-in-the-process.md). A session ends when it was idle or lived for too long, at the log-out, when what it
was opened with no longer holds, or when the process stops.

The id is 32 random bytes; only its SHA-256 is kept, so that what is looked up is no secret and its timing tells nothing.
"""

import base64
import hmac
import os
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

from starlette.requests import Request

from audit_api.auth import Principal
from audit_api.identity.crosssite import CSRF_FIELD, CSRF_HEADER
from audit_api.problems import Problem

__all__ = ["Holds", "Session", "Sessions"]

_ID_BYTES = 32
_MAX_ID = 100

Holds = Callable[[], Principal | None]
"""Tells whom a session stands for now; None: what it was opened with holds no longer. May raise `TallyError`: then it cannot be told."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One log-in of one browser.

    Attributes:
        name: what accesses on record call it (OpenTelemetry's ``session.id``): 16 hex digits that open nothing.
        principal: whom it stands for, as of this request.
        csrf: the synchroniser token that each unsafe request must bring, as header or form field.
        purpose: why they read, as they said on the page; empty: they did not say.
    """

    name: str
    principal: Principal
    csrf: str = field(repr=False)
    purpose: str = ""

    def owns(self, csrf: str) -> bool:
        """Whether this is its synchroniser token; in constant time."""
        return hmac.compare_digest(self.csrf.encode("utf-8"), csrf.encode("utf-8", "replace"))

    def demand_token(self, csrf: str) -> None:
        """Nothing, if this is its synchroniser token; raises the problem ``cross-site``."""
        if not self.owns(csrf):
            raise Problem(
                "cross-site", f"the session's CSRF token is missing: {CSRF_HEADER}, or the field {CSRF_FIELD}"
            )


@dataclass(slots=True, kw_only=True)
class _Kept:
    name: str
    csrf: str = field(repr=False)
    owner: str
    holds: Holds
    opened: float
    used: float
    purpose: str = ""


class Sessions:
    """All sessions of this process. Used in the event loop alone.

    Args:
        idle_seconds: a session that made no request for so long has ended.
        absolute_seconds: a session that was opened so long ago has ended.
        secure: the cookie is for TLS alone: `Secure`, and its name begins with ``__Host-`` (RFC 6265bis section 4.1.3.2).
        most: sessions at once; the one that was used longest ago makes room.
        most_each: of one principal, the same.
        monotonic: seconds that only go forward.
        random_bytes: makes ids and tokens.
    """

    def __init__(
        self,
        *,
        idle_seconds: float,
        absolute_seconds: float,
        secure: bool,
        monotonic: Callable[[], float],
        most: int = 10_000,
        most_each: int = 20,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._idle = idle_seconds
        self._absolute = absolute_seconds
        self._secure = secure
        self._most = most
        self._most_each = most_each
        self._monotonic = monotonic
        self._random = random_bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()  # by the id's hash, least recently used first

    @property
    def cookie_name(self) -> str:
        """Name of the cookie."""
        return "__Host-tally-session" if self._secure else "tally-session"

    def __len__(self) -> int:
        return len(self._kept)

    def open(self, principal: Principal, holds: Holds) -> tuple[Session, str]:
        """A new session, and the value of the ``Set-Cookie`` header that gives its id away, this once."""
        now = self._monotonic()
        secret = _text(self._random(_ID_BYTES))
        self._make_room(principal.name, now)
        kept = _Kept(
            name=self._random(8).hex(),
            csrf=_text(self._random(_ID_BYTES)),
            owner=principal.name,
            holds=holds,
            opened=now,
            used=now,
        )
        self._kept[_digest(secret)] = kept
        return Session(name=kept.name, principal=principal, csrf=kept.csrf), self._cookie(
            secret, max_age=int(self._absolute)
        )

    def of(self, request: Request) -> Session | None:
        """The session of a request; None when its cookie names none that lives. Counts as a use of it.

        Raises:
            TallyError: whether it still holds cannot be told now.
        """
        digest = self._digest_of(request)
        kept = self._kept.get(digest) if digest else None
        if kept is None:
            return None
        now = self._monotonic()
        principal = None if self._over(kept, now) else kept.holds()
        if principal is None or principal.name != kept.owner:
            del self._kept[digest]
            return None
        kept.used = now
        self._kept.move_to_end(digest)
        return Session(name=kept.name, principal=principal, csrf=kept.csrf, purpose=kept.purpose)

    def state_purpose(self, request: Request, purpose: str) -> None:
        """Keep why whoever is logged in reads, until they say otherwise or the session ends."""
        kept = self._kept.get(self._digest_of(request))
        if kept is not None:
            kept.purpose = purpose

    def stands_on(self, request: Request) -> Holds | None:
        """What the session of a request was opened with, if it has one."""
        kept = self._kept.get(self._digest_of(request))
        return kept.holds if kept is not None else None

    def close(self, request: Request) -> str:
        """End the session of a request, if it has one; gives the ``Set-Cookie`` header that removes the cookie."""
        self._kept.pop(self._digest_of(request), None)
        return self._cookie("", max_age=0)

    def _digest_of(self, request: Request) -> bytes:
        secret = request.cookies.get(self.cookie_name, "")
        return _digest(secret) if 0 < len(secret) <= _MAX_ID else b""

    def _over(self, kept: _Kept, now: float) -> bool:
        return now - kept.used >= self._idle or now - kept.opened >= self._absolute

    def _make_room(self, owner: str, now: float) -> None:
        for digest in [digest for digest, kept in self._kept.items() if self._over(kept, now)]:
            del self._kept[digest]
        own = [digest for digest, kept in self._kept.items() if kept.owner == owner]
        for digest in own[: max(0, len(own) - self._most_each + 1)]:
            del self._kept[digest]
        while len(self._kept) >= self._most:
            self._kept.popitem(last=False)

    def _cookie(self, secret: str, *, max_age: int) -> str:
        # Lax, not Strict: who comes from an e-mail's link or back from the identity provider is still logged in; unsafe requests
        # are held to their origin and to the synchroniser token besides.
        flags = "Path=/; HttpOnly; SameSite=Lax" + ("; Secure" if self._secure else "")
        return f"{self.cookie_name}={secret}; Max-Age={max_age}; {flags}"


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode("ascii").rstrip("=")


def _digest(secret: str) -> bytes:
    return sha256(secret.encode("utf-8", "replace")).digest()
