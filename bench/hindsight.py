"""A ceiling for the detector: a model that was shown which payments were fraud, and may choose its alerts when all is over.

Gradient-boosted trees (scikit-learn, `requirements/bench.lock`), trained on the earlier part of a history with its labels and scored on
the later part. What it is told of a payment comes from that payment and from what was before it, as with the detector; no account's name
and no label is among it.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from math import asin, cos, radians, sin, sqrt

from alerting.detect.payment import Payment

__all__ = ["CATEGORY", "FEATURES", "Labelled", "Model", "boosted_trees", "features", "highest", "split_at"]

Labelled = Sequence[tuple[Payment, bool]]
"""Payments in the order of the log, each with whether it was fraud."""

Model = Callable[[Sequence[Sequence[float]], Sequence[bool], Sequence[Sequence[float]]], Sequence[float]]
"""From rows of features, whether each was fraud, and later rows: how suspicious each of those is. The more, the higher."""

_HOUR_SECONDS = 3_600.0
_DAY_SECONDS = 86_400.0
_DAY_NS = 86_400_000_000_000
_WINDOWS = {"hour": _HOUR_SECONDS, "day": _DAY_SECONDS, "week": 7 * _DAY_SECONDS, "month": 30 * _DAY_SECONDS}
_ROLES = ("payer_paid", "payer_got", "payee_got", "payee_paid")
_NONE = float("nan")
_MOST_CATEGORIES = 255  # as many as the model tells apart

CATEGORY = "category"
"""The feature that is a number without an order."""

FEATURES = (
    "amount",
    "hour",
    "weekday",
    CATEGORY,
    "payer_pause_seconds",
    "payer_payments",
    "amount_to_payer_mean",
    "amount_to_payer_most",
    "payee_pause_seconds",
    "payee_payments",
    "amount_to_payee_mean",
    "amount_to_category_mean",
    "pair_payments",
    "payer_category_share",
    "kilometres",
    *(f"{role}_{what}_{window}" for role in _ROLES for window in _WINDOWS for what in ("count", "sum")),
)
"""What a row of `features` holds, in this order. Seconds, kilometres, ratios, or the payments' own unit of money; NaN: there was nothing before."""


class _Window:
    """Amounts of the latest seconds: how many, and how much together."""

    __slots__ = ("_kept", "_seconds", "_total")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._kept: deque[tuple[float, float]] = deque()
        self._total = 0.0

    def at(self, time: float) -> tuple[float, float]:
        """Count and sum of what is no older than the window at this time."""
        kept = self._kept
        while kept and kept[0][0] < time - self._seconds:
            self._total -= kept.popleft()[1]
        if not kept:
            self._total = 0.0  # so that rounding does not pile up
        return float(len(kept)), self._total

    def add(self, time: float, amount: float) -> None:
        self._kept.append((time, amount))
        self._total += amount


class _Past:
    """What one account or category did before."""

    __slots__ = ("categories", "count", "last", "most", "place", "total", "windows")

    def __init__(self) -> None:
        self.windows = [_Window(seconds) for seconds in _WINDOWS.values()]
        self.count = 0
        self.total = 0.0
        self.most = 0.0
        self.last = _NONE
        self.place: tuple[float, float] | None = None
        self.categories: dict[str, int] = defaultdict(int)

    def ratio(self, amount: float) -> float:
        """The amount beside the mean of those before."""
        return amount * self.count / self.total if self.total else _NONE

    def add(self, time: float, payment: Payment, amount: float) -> None:
        for window in self.windows:
            window.add(time, amount)
        self.count += 1
        self.total += amount
        self.most = max(self.most, amount)
        self.last = time
        self.place = payment.place or self.place
        self.categories[payment.category] += 1


def features(payments: Iterable[Payment]) -> list[list[float]]:
    """A row of `FEATURES` for each payment, from itself and from those that stand before it.

    Args:
        payments: in the order of the log, which is nearly that of their times.
    """
    paid: defaultdict[str, _Past] = defaultdict(_Past)
    got: defaultdict[str, _Past] = defaultdict(_Past)
    kinds: defaultdict[str, _Past] = defaultdict(_Past)
    pairs: defaultdict[tuple[str, str], int] = defaultdict(int)
    codes: dict[str, int] = {}
    rows = []
    for payment in payments:
        time, amount = payment.time_ns / 1e9, float(payment.amount)
        payer, payee, kind = paid[payment.account], got[payment.counterparty], kinds[payment.category]
        pair = payment.account, payment.counterparty
        code = codes.setdefault(payment.category, len(codes))
        row = [
            amount,
            time % _DAY_SECONDS / _HOUR_SECONDS,
            time // _DAY_SECONDS % 7,
            float(code) if code < _MOST_CATEGORIES else _NONE,
            time - payer.last,
            float(payer.count),
            payer.ratio(amount),
            amount / payer.most if payer.most else _NONE,
            time - payee.last,
            float(payee.count),
            payee.ratio(amount),
            kind.ratio(amount),
            float(pairs[pair]),
            payer.categories.get(payment.category, 0) / payer.count if payer.count else _NONE,
            _kilometres(payer.place, payment.place),
        ]
        for past in (payer, got[payment.account], payee, paid[payment.counterparty]):
            for window in past.windows:
                row += window.at(time)
        rows.append(row)
        payer.add(time, payment, amount)
        payee.add(time, payment, amount)
        kind.add(time, payment, amount)
        pairs[pair] += 1
    return rows


def _kilometres(one: tuple[float, float] | None, other: tuple[float, float] | None) -> float:
    """Between two places in degrees, on a sphere (haversine)."""
    if one is None or other is None:
        return _NONE
    (north, east), (north_2, east_2) = ((radians(at), radians(to)) for at, to in (one, other))
    half = sin((north_2 - north) / 2) ** 2 + cos(north) * cos(north_2) * sin((east_2 - east) / 2) ** 2
    return 12_742.0 * asin(min(1.0, sqrt(half)))


def split_at(payments: Labelled, share: float) -> int:
    """Where the later part begins: the first payment after the midnight (UTC) that follows the first `share` of all.

    Raises:
        ValueError: nothing is later, or a payment of an earlier day stands among the later ones.
    """
    days = [payment.time_ns // _DAY_NS for payment, _ in payments]
    last = days[max(int(len(days) * share), 1) - 1]
    at = sum(day <= last for day in days)
    if at == len(days):
        raise ValueError("no payment is of a later day than the earlier part")
    if min(days[at:]) <= last:
        raise ValueError(
            "payments of an earlier day stand among those of later ones: they cannot be cut in two by time"
        )
    return at


def highest(scores: Sequence[float], fraud: Sequence[bool], told: int) -> int:
    """How many of the `told` highest scores are fraud; of two equal scores the earlier comes first."""
    order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
    return sum(fraud[at] for at in order[:told])


def boosted_trees(
    rows: Sequence[Sequence[float]], fraud: Sequence[bool], later: Sequence[Sequence[float]]
) -> Sequence[float]:
    """Train on `rows`, and say how likely each of `later` is fraud. A `Model`.

    Raises:
        ImportError: scikit-learn is not installed.
    """
    import numpy as np  # noqa: PLC0415 - comes with the other
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415 - of this row alone, and in a lock of its own

    told = [at for at in range(len(FEATURES)) if len({row[at] for row in rows if row[at] == row[at]}) > 1]
    model = HistGradientBoostingClassifier(
        learning_rate=0.05,
        max_iter=300,
        min_samples_leaf=40,
        l2_regularization=1.0,
        early_stopping=False,
        categorical_features=[FEATURES[at] == CATEGORY for at in told],
        random_state=1,
    )
    model.fit(np.asarray(rows)[:, told], np.asarray(fraud))
    return [float(likely) for _, likely in model.predict_proba(np.asarray(later)[:, told])]
