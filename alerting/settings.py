"""The alerts' part of ``tally.toml``: the table ``[alerting]``. Every key is optional, unknown ones are refused."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

__all__ = ["NOBODY", "AlertingSettings", "Receiver", "Route", "Slo", "Smtp", "check_place"]

NOBODY = "nobody"
"""The receiver that tells nobody: of all alerts where no receiver is configured, of the watchdog where it has none."""

_Name = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
_Objective = Annotated[float, msgspec.Meta(ge=0.94, lt=1.0)]
_MATCHERS = re.compile(r'(?:[a-zA-Z_]\w*(?:=~|!~|!=|=)"[^"\\{}]*"(?:,(?!$)|$))*')


def check_place(url: str, key: str) -> None:
    """Refuse what is no URL, and one that may hold a secret; the text is not repeated for that reason."""
    parts = urlsplit(url)
    if url and (parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc or parts.query):
        raise ValueError(f"{key} is no http(s) URL without credentials and query")


class Slo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a service promises, over 30 days.

    Attributes:
        service: the service's name, as it stands in its events.
        kind: which of its requests count, `server`, `consumer` or `gateway`.
        objective: share of requests that do not fail. From 0.94: below it, 14.4 times the budget is more than all requests.
        latency_seconds: the time within which requests are to be answered, one of the histogram's bounds (0.005 to 30); 0: none.
        latency_objective: share of requests that are answered within it.
        team: whose alert it is; empty: `team` of `[alerting]`.
        least_requests: no alert with fewer requests than this in the longer window: one failure of two is no burn rate.
    """

    service: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    kind: Literal["server", "consumer", "gateway"] = "server"
    objective: _Objective = 0.99
    latency_seconds: float = 0.0
    latency_objective: _Objective = 0.95
    team: str = ""
    least_requests: Annotated[int, msgspec.Meta(ge=0)] = 20

    def __post_init__(self) -> None:
        """Refuse what the histogram cannot tell."""
        if not self.latency_seconds:
            return
        # here, so that a command which only reads its configuration does not load the metrics
        from collector.metrics import DURATION_BUCKETS  # noqa: PLC0415 - as the line above says

        if self.latency_seconds not in DURATION_BUCKETS:
            bounds = ", ".join(f"{bound:g}" for bound in DURATION_BUCKETS)
            raise ValueError(f"latency_seconds is none of the histogram's bounds: {bounds}")


class Receiver(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who hears of alerts; several ways may be given. Files are named as Alertmanager finds them (relative: beside its configuration).

    Attributes:
        pagerduty_key_file: file with the integration key of PagerDuty's Events API v2.
        slack_url_file: file with the URL of a Slack webhook, which is a secret.
        slack_channel: the channel; goes with `slack_url_file`.
        email_to: addresses; needs `[alerting.smtp]`.
        webhook_url: URL that gets Alertmanager's JSON. Holds no secret: that goes into `webhook_token_file`.
        webhook_token_file: file with the bearer token for `webhook_url`.
    """

    pagerduty_key_file: str = ""
    slack_url_file: str = ""
    slack_channel: str = ""
    email_to: tuple[str, ...] = ()
    webhook_url: str = ""
    webhook_token_file: str = ""

    def __post_init__(self) -> None:
        """Refuse a receiver that hears nothing, and half a way."""
        if not (self.pagerduty_key_file or self.slack_url_file or self.email_to or self.webhook_url):
            raise ValueError("a receiver needs pagerduty_key_file, slack_url_file, email_to or webhook_url")
        if bool(self.slack_url_file) != bool(self.slack_channel):
            raise ValueError("slack_url_file and slack_channel go together")
        if self.webhook_token_file and not self.webhook_url:
            raise ValueError("webhook_token_file goes with webhook_url")
        if any("@" not in address or set(address) & set(" \r\n,") for address in self.email_to):
            raise ValueError("email_to holds one address in each item")
        check_place(self.webhook_url, "webhook_url")


class Route(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Which alerts go to which receiver; the first route that fits is taken.

    Attributes:
        receiver: a name in `[alerting.receivers]`.
        severity: `page` (now) or `ticket` (in working hours); empty: both.
        team: the alert's team; empty: any.
    """

    receiver: _Name
    severity: Literal["", "page", "ticket"] = ""
    team: str = ""


class Smtp(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The mail server for receivers with `email_to`. TLS is demanded.

    Attributes:
        smarthost: host:port; empty: no mail.
        sender: the address that mails come from.
        user: user of the mail server; empty: none.
        password_file: file with the user's password.
    """

    smarthost: str = ""
    sender: str = ""
    user: str = ""
    password_file: str = ""

    def __post_init__(self) -> None:
        """Refuse half a mail server."""
        if bool(self.smarthost) != bool(self.sender):
            raise ValueError("smarthost and sender go together")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together")


class AlertingSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rules for Prometheus and routes for Alertmanager, which `tally render` writes (docs/alerting.md).

    Attributes:
        team: whose the alerts are that name no other team.
        objective: share of `server` requests that do not fail, for each service without an entry in `slos`; 0: no such alert.
        slos: what services promise.
        expected_collectors: collectors on other machines; those of this file are expected anyway. One that is not heard is an alert.
        expect_api: whether the API should be there.
        matchers: PromQL matchers for all rules, such as `ledger="payments"`, where one Prometheus has several ledgers.
        checkpoint_seconds: a checkpoint older than this is late. Collectors sign something every `ship.heartbeat_seconds`.
        stitch_seconds: from a batch's cutting to its entries in the log, for 99 of 100 batches.
        incomplete_share, incomplete_least: an alert at this share of a flow's transactions in 15 minutes, and at least so many.
        dead_letters: so many inputs refused in 10 minutes are an alert.
        reads_least, reads_factor: reads in an hour that are unusual: more than so many, and so many times the mean of the last week's hours, as far as they were watched.
        refusals: so many reads refused for want of a token or a right in 15 minutes are an alert.
        check_hours: how often, at least, `tally check --textfile` must come to its end; 0: nobody runs it.
        incident_hours: an incident that nobody signed off for so long is an alert; 0: none (docs/incidents.md).
        clock_seconds: a collector's clock that is so far off is an alert, where collectors measure it.
        runbook_url: where your people read docs/runbooks, such as `https://wiki.example/tally/`; empty: alerts name the file.
        receivers: who hears of alerts, by name.
        routes: which alerts go where; the first that fits.
        default_receiver: who hears of the rest; needed where there are receivers.
        watchdog_receiver: who hears every minute that the alerts' path works, and raises the alarm when not: a dead man's switch outside.
        incidents_receiver: who hands the keeper of incidents the alerts that it makes incidents of, whoever else hears them (docs/incidents.md).
        smtp: the mail server.
    """

    team: _Name = "platform"
    objective: Annotated[float, msgspec.Meta(ge=0.0, lt=1.0)] = 0.99
    slos: tuple[Slo, ...] = ()
    expected_collectors: tuple[_Name, ...] = ()
    expect_api: bool = True
    matchers: str = ""
    checkpoint_seconds: Annotated[int, msgspec.Meta(ge=10)] = 300
    stitch_seconds: Annotated[float, msgspec.Meta(gt=0.0, le=3600.0)] = 30.0
    incomplete_share: Annotated[float, msgspec.Meta(gt=0.0, le=1.0)] = 0.05
    incomplete_least: Annotated[int, msgspec.Meta(ge=1)] = 5
    dead_letters: Annotated[int, msgspec.Meta(ge=1)] = 1
    reads_least: Annotated[int, msgspec.Meta(ge=1)] = 200
    reads_factor: Annotated[float, msgspec.Meta(ge=1.0)] = 5.0
    refusals: Annotated[int, msgspec.Meta(ge=1)] = 20
    check_hours: Annotated[int, msgspec.Meta(ge=0)] = 26
    incident_hours: Annotated[int, msgspec.Meta(ge=0)] = 24
    clock_seconds: Annotated[float, msgspec.Meta(gt=0.0)] = 0.5
    runbook_url: str = ""
    receivers: dict[_Name, Receiver] = {}
    routes: tuple[Route, ...] = ()
    default_receiver: str = ""
    watchdog_receiver: str = ""
    incidents_receiver: str = ""
    smtp: Smtp = msgspec.field(default_factory=Smtp)

    def __post_init__(self) -> None:
        """Refuse a route to nobody, and mail without a server."""
        if self.objective and self.objective < 0.94:
            raise ValueError("objective is 0, or from 0.94: below it, 14.4 times the budget is more than all requests")
        for key in ("default_receiver", "watchdog_receiver", "incidents_receiver"):
            name = getattr(self, key)
            if name and name not in self.receivers:
                raise ValueError(f"{key}: there is no receiver {name}")
        for route in self.routes:
            if route.receiver not in self.receivers:
                raise ValueError(f"routes: there is no receiver {route.receiver}")
        if self.receivers and not self.default_receiver:
            raise ValueError("default_receiver is needed, so that no alert is lost between routes")
        if any(one.email_to for one in self.receivers.values()) and not self.smtp.smarthost:
            raise ValueError("email_to needs [alerting.smtp]")
        if _MATCHERS.fullmatch(self.matchers) is None:
            raise ValueError('matchers are written like ledger="payments",region="eu"')
        if NOBODY in self.receivers:
            raise ValueError(f"receivers: the name {NOBODY} is taken, by who hears nothing")
        services = [slo.service for slo in self.slos]
        if len(set(services)) != len(services):
            raise ValueError("slos: a service has one entry")
        check_place(self.runbook_url, "runbook_url")
