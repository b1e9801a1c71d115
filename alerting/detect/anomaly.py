"""The rule that was not written down: payments unlike the others of their kind, by online half-space trees.

S. C. Tan, K. M. Ting, T. F. Liu, "Fast anomaly detection for streaming data", IJCAI 2011, as River implements it
(https://riverml.xyz, extra ``detect``). It learns from every payment, forgets by windows, and needs no labels. It is no judge:
it ranks, and the rule tells of the share of payments that ranks highest.
"""

import re
from collections.abc import Callable
from importlib import import_module
from math import log1p, sqrt
from typing import Annotated, Any

import msgspec

from alerting.detect.memory import Accounts
from alerting.detect.payment import Payment
from alerting.detect.rule import Rule, Seconds, Watch
from alerting.detect.words import money
from collector.errors import Malformed

__all__ = ["AnomalyRule"]

_DAY_SECONDS = 86_400.0
_COUNTERPARTIES = 100
_MOST_MODELS = 50
"""Of kinds and currencies. One of the default settings takes some three MiB, and as long to make as thousands of payments take to look at."""
_IDLE_PAYMENTS = 10_000
"""A model that had none of so many makes room for another one; no sooner: else whoever makes up currencies, or has many, has one made for each payment."""
_CODE = re.compile(r"[A-Z]{3}", re.ASCII)
_NO_CODE = "no code"  # of texts that are none: events may hold anything there, and each another
_FORGET = 0.05  # of an account's mean with each payment

_MOST_PAUSE_SECONDS = 90 * _DAY_SECONDS
_MOST_OFF = 6.0  # standard deviations: one huge value must not press all others together for ever

_TOLD_OF = 25
"""The score that is told is that which so many of the latest payments have reached."""

_WORDS = {
    "amount": "its amount",
    "against_usual": "its amount beside what this account usually pays",
    "against_category": "its amount beside what is usually paid in its category",
    "pause": "the time since the payment before",
    "hour": "the time of day",
    "new_counterparty": "whom it pays",
}
"""Features, and what a person is told of them."""


class AnomalyRule(Rule, frozen=True, kw_only=True, tag="anomaly"):
    """A payment unlike the others of its kind.

    Attributes:
        budget: the share of payments that are told, those that rank highest.
        learn_payments: payments of a kind that are only learned from at first.
        trees, height, window_payments: of the half-space trees; so many payments are one generation of what they know.
        warm_seconds: how much of the log is read again after a restart to learn from, in event time.
        seed: of the trees' cuts: the same log gives the same findings.
    """

    budget: Annotated[float, msgspec.Meta(gt=0.0, le=0.2)] = 0.005
    learn_payments: Annotated[int, msgspec.Meta(ge=100, le=1_000_000)] = 2_000
    trees: Annotated[int, msgspec.Meta(ge=1, le=200)] = 25
    height: Annotated[int, msgspec.Meta(ge=2, le=15)] = 8
    window_payments: Annotated[int, msgspec.Meta(ge=50, le=100_000)] = 1_000
    warm_seconds: Seconds = 30 * _DAY_SECONDS
    seed: int = 1

    def watch(self) -> Watch:
        """See `Rule.watch`. Raises `Malformed` when River is not installed."""
        return _Anomalies(self)

    @property
    def horizon_seconds(self) -> float:
        """See `Rule.horizon_seconds`."""
        return self.warm_seconds


class _Sizes:
    """The logarithms of amounts, the latest counting most: mean and variance."""

    __slots__ = ("mean", "seen", "spread")

    def __init__(self) -> None:
        self.seen = 0
        self.mean = 0.0
        self.spread = 1.0

    def off(self, size: float) -> float:
        """By how many standard deviations this one is off; 0 while little is known."""
        if self.seen <= 2:
            return 0.0
        return min(max((size - self.mean) / sqrt(self.spread + 0.01), -_MOST_OFF), _MOST_OFF)

    def learn(self, size: float) -> None:
        """Remember one more."""
        weight = max(_FORGET, 1 / (self.seen + 1))
        off = size - self.mean
        self.mean += weight * off
        self.spread = (1 - weight) * (self.spread + weight * off * off)
        self.seen += 1


class _Usual:
    """What an account usually does."""

    __slots__ = ("counterparties", "sizes", "time_ns")

    def __init__(self) -> None:
        self.sizes = _Sizes()
        self.time_ns = 0
        self.counterparties: dict[str, None] = {}


class _Model:
    """Half-space trees over payments of one kind, and the score that the budget lets through."""

    def __init__(self, rule: AnomalyRule, river: Any) -> None:
        self.seen = 0
        self._limits: dict[str, tuple[float, float]] = {}
        self._means: dict[str, float] = {}
        self._trees = river.anomaly.HalfSpaceTrees(
            n_trees=rule.trees, height=rule.height, window_size=rule.window_payments, seed=rule.seed
        )
        # of the latest scores: as the trees come to know more, all scores change
        self._quantile = river.stats.RollingQuantile(1.0 - rule.budget, window_size=int(_TOLD_OF / rule.budget))

    def rank(self, features: dict[str, float]) -> tuple[float, float, str]:
        """The payment's score, the least score that is told, and the feature that makes most of it; learns from it."""
        scaled = self._scaled(features)
        score: float = self._trees.score_one(scaled)
        least = self._quantile.get()
        most = self._most(scaled, score) if least is not None and score > least else ""
        self._trees.learn_one(scaled)
        self._quantile.update(score)
        self.seen += 1
        for name, value in scaled.items():
            mean = self._means.get(name, value)
            self._means[name] = mean + (value - mean) / min(self.seen, 1_000)
        return score, 1.0 if least is None else least, most

    def _scaled(self, features: dict[str, float]) -> dict[str, float]:
        """Each within 0 and 1, by the extremes seen so far: the trees cut where payments are, not where they could be."""
        scaled = {}
        for name, value in features.items():
            low, high = self._limits.get(name, (value, value))
            low, high = self._limits[name] = min(low, value), max(high, value)
            scaled[name] = (value - low) / (high - low) if high > low else 0.5
        return scaled

    def _most(self, scaled: dict[str, float], score: float) -> str:
        """The feature without which the score falls most."""
        falls = {
            name: score - self._trees.score_one({**scaled, name: mean}) for name, mean in sorted(self._means.items())
        }
        return max(falls, key=lambda name: falls[name])


class _Models:
    """Of each kind and currency one of its own, while there is room; of a kind's other payments one together."""

    def __init__(self, make: Callable[[], _Model]) -> None:
        self._make = make
        self._seen = 0
        self._own: dict[tuple[str, str], tuple[_Model, int]] = {}  # with `_seen` at its last payment, in this order
        self._of_others: dict[str, _Model] = {}  # by kind, which are declared

    def of(self, kind: str, currency: str) -> tuple[tuple[str, str], _Model]:
        """The model that looks at this payment now, and what it is called."""
        self._seen += 1
        key = (kind, currency)
        if not currency or _CODE.fullmatch(currency):
            model = self._own_of(key)
            if model is not None:
                self._own[key] = model, self._seen
                return key, model
        if kind not in self._of_others:
            self._of_others[kind] = self._make()
        return (kind, _NO_CODE), self._of_others[kind]

    def _own_of(self, key: tuple[str, str]) -> _Model | None:
        """Its own, taken out of the order; None: it has none, and there is no room."""
        if key in self._own:
            return self._own.pop(key)[0]
        if len(self._own) >= _MOST_MODELS:
            idlest = next(iter(self._own))
            if self._seen - self._own[idlest][1] <= _IDLE_PAYMENTS:
                return None
            del self._own[idlest]
        return self._make()


class _Anomalies:
    def __init__(self, rule: AnomalyRule) -> None:
        try:
            import_module("river.anomaly")
            import_module("river.stats")
            self._river = import_module("river")
        except ModuleNotFoundError as error:
            raise Malformed(
                "a rule of kind anomaly needs more than is installed: pip install 'tallystick[detect]'", where=rule.name
            ) from error
        self._rule = rule
        self._usual: Accounts[tuple[str, str], _Usual] = Accounts(_Usual)
        self._categories: Accounts[tuple[str, str, str], _Sizes] = Accounts(_Sizes, most=10_000)
        self._models = _Models(lambda: _Model(self._rule, self._river))

    def look(self, payment: Payment) -> str:
        key, model = self._models.of(payment.kind, payment.currency)
        usual = self._usual.of((payment.tenant, payment.account))
        category = self._categories.of((*key, payment.category))
        score, least, most = model.rank(_features(payment, usual, category))
        _learn(payment, usual, category)
        if not most or model.seen <= self._rule.learn_payments:
            return ""
        amount = money(payment.amount, payment.currency)
        return (
            f"{amount} is unlike the last {self._rule.window_payments:,} payments: {_WORDS[most]}"
            f" (score {score:.3f}, told from {least:.3f})"
        )


def _features(payment: Payment, usual: _Usual, category: _Sizes) -> dict[str, float]:
    size = log1p(float(payment.amount))
    known = usual.sizes.seen
    pause_seconds = max(payment.time_ns - usual.time_ns, 0) / 1e9 if known else _DAY_SECONDS
    return {
        "amount": size,
        "against_usual": usual.sizes.off(size),
        "against_category": category.off(size),
        "pause": log1p(min(pause_seconds, _MOST_PAUSE_SECONDS)),
        "hour": payment.time_ns // 3_600_000_000_000 % 24 / 23,
        "new_counterparty": float(payment.counterparty not in usual.counterparties) if known > 2 else 0.0,
    }


def _learn(payment: Payment, usual: _Usual, category: _Sizes) -> None:
    size = log1p(float(payment.amount))
    usual.sizes.learn(size)
    category.learn(size)
    usual.time_ns = max(usual.time_ns, payment.time_ns)
    if payment.counterparty:
        usual.counterparties.pop(payment.counterparty, None)
        usual.counterparties[payment.counterparty] = None
        if len(usual.counterparties) > _COUNTERPARTIES:
            del usual.counterparties[next(iter(usual.counterparties))]
