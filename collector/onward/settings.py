"""The table ``[collector.metrics_to]``: where the services' metrics, and the sidecar's own, go."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from collector.receive.listening import is_this_machine

__all__ = ["MetricsToSettings"]

_Seconds = Annotated[float, msgspec.Meta(ge=0.1, le=3_600.0)]


class MetricsToSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the data points of services' OTLP metrics go (docs/metrics.md).

    Attributes:
        url: whole URL that they are sent to, such as ``https://prometheus:9090/api/v1/write`` or ``…/api/v1/otlp/v1/metrics``; empty: they are sent nowhere.
        protocol: ``remote-write``, version 2.0 where the server takes it and else 1.0; ``remote-write-1``, version 1.0; ``otlp``, OTLP/HTTP.
            Remote-write needs the extra ``tallystick[remote-write]``.
        expose: show them under ``/service-metrics`` on the port of ``[collector.http]``, for Prometheus to scrape.
        own_seconds: send the sidecar's own metrics as well, this often and at its end; 0: they are only scraped, at ``/metrics``.
        max_series: so many series at most at a time, of all services; the data points of further ones are dropped and counted.
        max_series_of_service: so many at most of one ``service.name``.
        stale_seconds: a series without a data point for so long is marked as stale, and makes room for another.
        histograms: what exponential histograms become: ``native`` histograms, or ``classic`` ones with the powers of two as their bounds.
        queue_bytes: what waits in memory for the server; beyond it the oldest is dropped and counted.
        max_age_seconds: what has waited for so long is dropped and counted; Prometheus refuses samples older than its newest hour or so.
        flush_seconds: how long a stop waits for the server to take what still waits.
        timeout_seconds: for connecting, and again for an answer.
        token_file: file with a bearer token (RFC 6750).
        user: name for basic authentication (RFC 7617); empty: none.
        password_file: file with the user's password.
        ca_file: PEM file with the authorities that the server's certificate may be of; empty: the system's.
        client_certificate, client_key: PEM files, for a server that wants to see a certificate; both or neither.
        unprotected: send beyond this machine though anybody in between may read along (``http://``).
    """

    url: str = ""
    protocol: Literal["remote-write", "remote-write-1", "otlp"] = "remote-write"
    expose: bool = False
    own_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=3_600.0)] = 0.0
    max_series: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10_000
    max_series_of_service: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 2_000
    stale_seconds: Annotated[float, msgspec.Meta(ge=1.0, le=86_400.0)] = 300.0
    histograms: Literal["native", "classic"] = "native"
    queue_bytes: Annotated[int, msgspec.Meta(ge=65_536, le=1024**3)] = 16 * 1024**2
    max_age_seconds: _Seconds = 1_800.0
    flush_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=600.0)] = 5.0
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=600.0)] = 10.0
    token_file: str = ""
    user: str = ""
    password_file: str = ""
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what is no place, what cannot be used together, and what protects less than it seems to."""
        if bool(self.client_certificate) != bool(self.client_key):
            raise ValueError("client_certificate and client_key go together")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together")
        if self.user and self.token_file:
            raise ValueError("a user and a token_file: a request has one Authorization")
        if not self.url:
            if self.own_seconds or self.token_file or self.user or self.ca_file or self.client_certificate:
                raise ValueError("url is empty, and yet there are settings for it")
            return
        parts = urlsplit(self.url)
        if "@" in parts.netloc or parts.query or parts.fragment:  # the text is not repeated: it may be a secret
            raise ValueError("url holds more than a place")
        try:
            usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
        except ValueError:
            usable = False
        if not usable or parts.path in {"", "/"}:
            raise ValueError("url is no whole URL of the form https://host:port/path")
        if parts.scheme == "http":
            if self.ca_file or self.client_certificate:
                raise ValueError("url is http://, and yet there are settings for TLS")
            if not (self.unprotected or is_this_machine(parts.hostname or "")):
                raise ValueError("sending beyond this machine needs https://, or unprotected = true")
