"""The incidents' part of ``tally.toml``: the table ``[incidents]``. Every key is optional, unknown ones are refused."""

from typing import Annotated

import msgspec

from alerting.settings import check_place

__all__ = ["IncidentSettings"]

_Seconds = Annotated[float, msgspec.Meta(ge=0.05, le=86_400)]


class IncidentSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which failures of controls are incidents (docs/incidents.md). Who is expected stands in `[alerting]`: `expected_collectors`.

    Attributes:
        enabled: whether `tally up` runs the process that keeps incidents.
        poll_seconds: how often it looks whether the log has grown.
        probe_seconds: how often it asks the store, the processes of this machine and Alertmanager.
        patience_seconds: what fails, or works again, counts when it did so for so long without a break.
        lost_seconds: a collector that is expected is lost when the log grew for so long without a batch of it.
        quiet_seconds: an incident of dead letters ends when there were none for so long.
        review_hours: how often, at least, somebody must list or sign off what calls for a look; 0: no incident when nobody does.
        check_file: what `tally check --textfile` writes; empty: its findings are told by Alertmanager, or not at all.
        alertmanagers: URLs of the Alertmanagers that are to tell people, without a path.
        webhook_token_file: file with the bearer token by which Alertmanager may post to /alerts here; empty: it may not.
            With it the processes' own metrics are not read: Prometheus does.
        heartbeat_url_file: file with the URL of a dead man's switch outside, which is a secret; empty: nobody is told that we live.
        heartbeat_seconds: how often it is told.
        metrics_port: where /metrics, /livez, /readyz and /alerts are served on localhost; 0 chooses a free port.
    """

    enabled: bool = True
    poll_seconds: _Seconds = 0.5
    probe_seconds: _Seconds = 15.0
    patience_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=86_400)] = 60.0
    lost_seconds: _Seconds = 300.0
    quiet_seconds: _Seconds = 600.0
    review_hours: Annotated[float, msgspec.Meta(ge=0.0, le=8_784)] = 0.0
    check_file: str = ""
    alertmanagers: tuple[str, ...] = ()
    webhook_token_file: str = ""
    heartbeat_url_file: str = ""
    heartbeat_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=3_600)] = 60.0
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0

    def __post_init__(self) -> None:
        """Refuse places that are none, or that hold a secret."""
        for url in self.alertmanagers:
            check_place(url, "incidents.alertmanagers")
        if self.check_file and self.webhook_token_file:
            raise ValueError("check_file goes without webhook_token_file: Alertmanager tells of the check as well")
