"""Shows every payment to every watch, and says what they found. Pure but for what a watch may be."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from alerting.detect.payment import Payment
from alerting.detect.rule import Rule, Severity, version_of

__all__ = ["Engine", "Finding"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """A payment that a rule finds suspicious.

    Attributes:
        rule, version: the rule's name, and what names its settings (`version_of`).
        severity, freeze: the rule's.
        reason: why, in words; names no account.
        payment: the payment.
    """

    rule: str
    version: str
    severity: Severity
    freeze: bool = False
    reason: str
    payment: Payment

    def id_in(self, origin: str) -> bytes:
        """32 bytes that name this finding in a log: the same rule finds the same of the same leaf once, however often it is read."""
        told = f"{origin}\n{self.payment.leaf}\n{self.rule}\n{self.version}"
        return hashlib.sha256(told.encode()).digest()


class Engine:
    """Rules at work.

    Args:
        rules: each makes a watch of its own.

    Raises:
        Malformed: a rule's list cannot be read.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._watches = [(rule, version_of(rule), rule.watch()) for rule in rules]
        self.rules = tuple(rule.name for rule in rules)
        self.horizon_seconds = max((rule.horizon_seconds for rule in rules), default=0.0)

    def look(self, payment: Payment) -> list[Finding]:
        """What the rules find of this payment, in their order; they remember it."""
        found = []
        for rule, version, watch in self._watches:
            if rule.payments and payment.kind not in rule.payments:
                continue
            if reason := watch.look(payment):
                found.append(
                    Finding(
                        rule=rule.name,
                        version=version,
                        severity=rule.severity,
                        freeze=rule.freeze,
                        reason=reason,
                        payment=payment,
                    )
                )
        return found
