"""Rules tried on what has happened: how often each would have told, and, where it is known which payments were fraud, how well. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from alerting.detect.engine import Engine
from alerting.detect.payment import Payment

__all__ = ["Backtest", "Score", "try_rules"]

EXAMPLES = 3


@dataclass(slots=True, kw_only=True)
class Score:
    """What one rule found, or all of them together.

    Attributes:
        told: payments that it found suspicious.
        right: of those, how many were fraud.
        examples: the first findings: the leaf and the reason.
    """

    told: int = 0
    right: int = 0
    examples: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Backtest:
    """What came of it.

    Attributes:
        payments: how many were looked at.
        fraud: how many of them were fraud; None where nobody knows.
        any_rule: payments that one rule at least found suspicious.
        rules: by the rule's name, in the order in which the rules are declared.
    """

    payments: int = 0
    fraud: int | None = None
    any_rule: Score = field(default_factory=Score)
    rules: dict[str, Score] = field(default_factory=dict)

    def precision(self, score: Score) -> float | None:
        """Of what was told the share that was fraud."""
        return score.right / score.told if self.fraud is not None and score.told else None

    def recall(self, score: Score) -> float | None:
        """Of the fraud the share that was told."""
        return score.right / self.fraud if self.fraud else None


def try_rules(engine: Engine, payments: Iterable[tuple[Payment, bool | None]]) -> Backtest:
    """Show the payments to the rules.

    Args:
        engine: what it has seen before is its past, and counts nowhere here.
        payments: in the order of the log, each with whether it was fraud; None: not known.
    """
    found = Backtest(rules={name: Score() for name in engine.rules})
    for payment, fraud in payments:
        found.payments += 1
        if fraud is not None:
            found.fraud = (found.fraud or 0) + fraud
        findings = engine.look(payment)
        for finding in findings:
            score = found.rules[finding.rule]
            score.told += 1
            score.right += bool(fraud)
            if len(score.examples) < EXAMPLES:
                score.examples.append((payment.leaf, finding.reason))
        if findings:
            found.any_rule.told += 1
            found.any_rule.right += bool(fraud)
    return found
