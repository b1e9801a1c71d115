"""A finding that is on record and waits: to be told, or for the payment to be stopped. Pure."""

from dataclasses import dataclass, replace

from alerting.detect.engine import Finding

__all__ = ["Told"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A finding on its way to an Alertmanager, or to whoever stops payments, with the log it is of."""

    origin: str
    finding: Finding

    def nameless(self) -> "Told":
        """The same without what names an account: nobody who is told or asked needs it, and it may wait in a file for long."""
        payment = replace(self.finding.payment, account="", counterparty="", device="", country="", place=None)
        return replace(self, finding=replace(self.finding, payment=payment))
