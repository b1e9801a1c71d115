"""The table ``[audit_api.redis]``: where several API processes count together what each principal may ask."""

from typing import Annotated
from urllib.parse import urlsplit

import msgspec

__all__ = ["RedisSettings"]

_HERE = ("127.0.0.1", "::1", "localhost")


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the Redis in which API processes keep one count of requests, exports and exported rows. No secret stands here.

    Attributes:
        url: `rediss://host:6379/0` (TLS), or `redis://` on this machine; empty: each API process counts by itself. Needs the extra
            `tallystick[redis]`.
        user: the name that it knows us by; empty: its default user.
        password_file: file whose first line is the password; read at each connection, so it may be replaced.
        ca_file: PEM file of the authority that its certificate comes from; empty: those of this machine.
        client_certificate, client_key: PEM files, where it knows its clients by certificate; both or neither.
        prefix: what the names of our keys begin with: another one for each ledger.
        timeout_seconds: what takes longer counts as away; the process then counts by itself, for a moment.
        unprotected: speak beyond this machine without TLS, though anybody in between may read along.
    """

    url: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    prefix: Annotated[str, msgspec.Meta(pattern=r"^[a-z][a-z0-9:-]{0,40}$")] = "tally"
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=10.0)] = 0.25
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no place, what holds a secret, and what protects less than it seems to."""
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError("client_certificate and client_key belong together")
        if self.user and not self.password_file:
            raise ValueError("user goes with password_file")
        if not self.url:
            if self.password_file or self.ca_file or self.client_certificate:
                raise ValueError("there are settings for a connection, and no url")
            return
        parts = urlsplit(self.url)
        try:
            port = parts.port
        except ValueError:
            port = 0
        if "@" in parts.netloc or parts.query or parts.fragment:  # the text is not repeated: it may be a secret
            raise ValueError("url holds more than a place: user and password_file are for who we are")
        if parts.scheme not in ("redis", "rediss") or not parts.hostname or port == 0:
            raise ValueError("url is no URL such as rediss://host:6379/0")
        if not (parts.path.strip("/").isdecimal() or parts.path in ("", "/")):
            raise ValueError("url ends in the number of a database, or in none")
        if parts.scheme == "redis":
            if self.ca_file or self.client_certificate:
                raise ValueError("url is redis://, and yet there are settings for TLS")
            if not (self.unprotected or parts.hostname in _HERE):
                raise ValueError("a Redis beyond this machine needs rediss://, or unprotected = true")
