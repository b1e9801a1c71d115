"""The API's part of ``tally.toml``: the table ``[audit_api]``. Every key is optional, unknown ones are refused."""

import re
from datetime import date
from typing import Annotated

import msgspec

from audit_api.identity.oidc.settings import OidcSettings
from audit_api.redis_settings import RedisSettings

__all__ = ["ApiSettings"]

_Positive = Annotated[int, msgspec.Meta(ge=1)]


class ApiSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the API.

    Attributes:
        host: address to listen on. Anything but this machine needs TLS: set it here, or put a proxy in front.
        port: TCP port; 0 chooses a free one.
        tls_certificate, tls_key: PEM files; both or neither.
        tls_client_ca: PEM file of the authority of clients' certificates, which are then asked for, not demanded: tokens may be bound to one
            (RFC 8705).
        oidc: the identity provider, if there is one.
        redis: where several API processes count limits together.
        public_url: the origin under which browsers see the API, as `https://audit.example`, where a proxy stands in front of it; empty:
            as requests arrive.
        session_idle_seconds: a browser's session ends when it made no request for so long (PCI DSS 4.0.1, 8.2.8: 900).
        session_seconds: it ends after so long in any case.
        public_log: serve the checkpoint and the hash tiles to anyone: they hold hashes alone, and witnesses need them.
        purpose_required: refuse to answer whoever does not say why they ask, with `Tally-Purpose` or the parameter `purpose`; it goes on record.
        page_trails: most trails that one answer lists.
        page_entries: most entries that one answer about a trail holds.
        export_entries: most entries that a bundle may hold; with more the answer is a problem that says so.
        export_rows: most rows of an export as data; one that would have more ends there, and its manifest says so.
        export_jobs: most export jobs that are kept at a time, made or to be made, of all principals together.
        export_disk_bytes: most bytes of their files together.
        export_keep_seconds: so long after it ended a job and its file are kept.
        export_rows_a_day: most rows that exports as data may give a principal within 24 hours.
        report_fonts: TrueType or OpenType files for letters that the fonts of the extra `pdf` have not, such as Chinese ones.
        daily_review_since: from this day on (`2026-01-31`, UTC) every day has to be signed off (PCI DSS 4.0.1, 10.4.1): days that are not
            are on the metrics, and an alert tells of them. Empty: no day has to be.
        saved_searches: most searches that a principal may keep under a name.
        live_readers: how many may read along what happens (`/v1/live`) at once.
        live_seconds: so long at most, then they ask again, and it is looked anew who they are.
        requests_a_second: how often a principal may ask, on average; each answer costs an access on record.
        burst_requests: how many requests at once it may save up for.
        exports_an_hour: how many exports a principal may begin, on average: each takes more of the machine, and more away, than a request.
        burst_exports: how many of these at once it may save up for.
        anonymous_refusals_a_minute: refusals without a valid token that are put on record one by one; the rest of the minute
            is recorded as one entry with their count.
        recorder_threads: accesses that may wait for the disk at once; they share its syncs.
        shutdown_seconds: how long a stop waits for answers under way.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 8420
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    oidc: OidcSettings = msgspec.field(default_factory=OidcSettings)
    redis: RedisSettings = msgspec.field(default_factory=RedisSettings)
    public_url: str = ""
    session_idle_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    session_seconds: Annotated[int, msgspec.Meta(ge=1, le=604_800)] = 28_800
    public_log: bool = True
    purpose_required: bool = False
    page_trails: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 200
    page_entries: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 1_000
    export_entries: Annotated[int, msgspec.Meta(ge=1, le=100_000)] = 10_000
    export_rows: Annotated[int, msgspec.Meta(ge=1, le=100_000_000)] = 1_000_000
    export_jobs: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 20
    export_disk_bytes: Annotated[int, msgspec.Meta(ge=1_000_000)] = 10_000_000_000
    export_keep_seconds: Annotated[int, msgspec.Meta(ge=60, le=31_536_000)] = 86_400
    export_rows_a_day: _Positive = 20_000_000
    report_fonts: tuple[str, ...] = ()
    daily_review_since: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2})?$")] = ""
    saved_searches: Annotated[int, msgspec.Meta(ge=0, le=10_000)] = 100
    live_readers: Annotated[int, msgspec.Meta(ge=0, le=400)] = 32
    live_seconds: Annotated[int, msgspec.Meta(ge=1, le=86_400)] = 900
    requests_a_second: Annotated[float, msgspec.Meta(gt=0.0, le=100_000.0)] = 50.0
    burst_requests: _Positive = 200
    exports_an_hour: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 600
    burst_exports: _Positive = 60
    anonymous_refusals_a_minute: _Positive = 60
    recorder_threads: Annotated[int, msgspec.Meta(ge=1, le=256)] = 16
    shutdown_seconds: Annotated[int, msgspec.Meta(ge=0, le=3_600)] = 10

    def __post_init__(self) -> None:
        """Refuse half a TLS configuration."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key belong together")
        if self.tls_client_ca and not self.tls_certificate:
            raise ValueError("tls_client_ca goes with tls_certificate")
        if self.daily_review_since:
            try:
                date.fromisoformat(self.daily_review_since)
            except ValueError as error:
                raise ValueError("daily_review_since is no day such as 2026-01-31") from error
        if self.oidc.issuer and self.oidc.client_id and not self.oidc.introspection and not self.public_url:
            raise ValueError("oidc.client_id is for browsers' log-in, which needs public_url to come back to")
        if self.public_url and not re.fullmatch(r"https?://[A-Za-z0-9.:\[\]-]{1,253}", self.public_url, re.ASCII):
            raise ValueError("public_url is no origin such as https://audit.example: no path, no credentials")

    @property
    def secure(self) -> bool:
        """Whether browsers speak TLS with it: its own, or that of a proxy that `public_url` tells of."""
        return bool(self.tls_certificate) or self.public_url.startswith("https://")
