"""The detector's part of ``tally.toml``: the table ``[detector]``. Every key is optional, unknown ones are refused."""

from typing import Annotated

import msgspec

from alerting.detect.amounts import AmountRule, StructuringRule, VelocityRule
from alerting.detect.anomaly import AnomalyRule
from alerting.detect.flows import FanRule, RoundTripRule
from alerting.detect.habits import DormantRule, NewRule, TravelRule
from alerting.detect.listed import ListedRule
from alerting.detect.payment import PaymentSettings

__all__ = ["AlertmanagerSettings", "AnyRule", "DetectorSettings", "FreezeSettings"]

AnyRule = (
    AmountRule
    | VelocityRule
    | StructuringRule
    | NewRule
    | TravelRule
    | DormantRule
    | FanRule
    | RoundTripRule
    | ListedRule
    | AnomalyRule
)
"""Every kind of rule; ``kind`` says which."""

_Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]


class AlertmanagerSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where findings become alerts.

    Attributes:
        urls: Alertmanagers of one cluster, each told of everything (``http://host:9093``); none: findings go on record alone.
        ca_file: PEM file with the authorities that are believed; empty: the system's.
        token_file: file with a bearer token; empty: none is sent.
        resolve_seconds: an alert ends by itself so long after its finding.
        trail_url: where a person reads a trail; ``{trail}`` stands for its id, percent-encoded.
    """

    urls: tuple[str, ...] = ()
    ca_file: str = ""
    token_file: str = ""
    resolve_seconds: Annotated[float, msgspec.Meta(ge=60, le=30 * 86_400)] = 3_600.0
    trail_url: str = ""


class FreezeSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who is asked to stop a payment, by findings of rules with `freeze` (docs/detection.md, Freezing).

    Attributes:
        url: where to post; https unless it is this machine. Empty: nobody is asked.
        secret_file: file with the secret that signs, base64 of 24 to 64 bytes, with or without ``whsec_``.
        ca_file: PEM file with the authorities that are believed; empty: the system's.
        give_up_seconds: when nobody has answered since a request began to wait, for so long, that is put on record as its outcome.
    """

    url: str = ""
    secret_file: str = ""
    ca_file: str = ""
    give_up_seconds: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 900.0

    def __post_init__(self) -> None:
        """Refuse requests that nobody could tell from forged ones."""
        if self.url and not self.secret_file:
            raise ValueError("freeze requests are signed: secret_file is missing")


class DetectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the detector; without rules there is nothing to run.

    Attributes:
        payments: which events are payments.
        rules: what is suspicious.
        alertmanager: whom to tell.
        freeze: who is asked to stop payments.
        poll_seconds: how often it looks whether the log has grown.
        metrics_port: where /metrics, /livez and /readyz are served on localhost; 0 chooses a free port.
    """

    payments: tuple[PaymentSettings, ...] = ()
    rules: tuple[AnyRule, ...] = ()
    alertmanager: AlertmanagerSettings = msgspec.field(default_factory=AlertmanagerSettings)
    freeze: FreezeSettings = msgspec.field(default_factory=FreezeSettings)
    poll_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 0.2
    metrics_port: _Port = 0

    def __post_init__(self) -> None:
        """Refuse names that are taken, rules over payments that are not declared, and rules without payments."""
        for what, names in (
            ("payments", [one.name for one in self.payments]),
            ("rules", [one.name for one in self.rules]),
        ):
            if len(set(names)) != len(names):
                raise ValueError(f"two {what} have the same name")
        kinds = {one.name for one in self.payments}
        for rule in self.rules:
            if unknown := set(rule.payments) - kinds:
                raise ValueError(f"rule {rule.name}: there are no payments called {', '.join(sorted(unknown))}")
        if (asking := [rule.name for rule in self.rules if rule.freeze]) and not self.freeze.url:
            raise ValueError(f"rule {asking[0]} asks for a freeze, and detector.freeze.url does not say whom to ask")
        if self.rules and not self.payments:
            raise ValueError("rules need payments to look at: [[detector.payments]]")
