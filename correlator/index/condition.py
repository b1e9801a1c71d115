"""Conditions on trails that can be combined: what `correlator.index.filters` makes of text, and what every index answers. Pure.

A condition is looked at for each trail by itself, in what an index keeps of it. A trail of which nothing is known (no stated time, no
amount in that currency) does not meet a condition on it, and meets its `Not`.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

from correlator.index.amounts import AmountRange
from correlator.index.words import TextSearch

__all__ = ["And", "Condition", "Has", "HasAmount", "HasKey", "HasText", "HasTime", "Not", "Or", "conjuncts"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Has:
    """One of the values is the trail's id, tenant, family or status, or is among the names of its services or events."""

    field: Literal["trail", "tenant", "kind", "status", "service", "event"]
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HasKey:
    """It has a business key of this name with one of these values."""

    name: str
    values: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HasTime:
    """The span from the least to the greatest stated time of its events reaches ``> >= < <=`` this time.

    So ``>=`` says that the span ends at or after it, and ``<`` that it begins before it. `time` is in the form that events carry.
    """

    than: Literal[">", ">=", "<", "<="]
    time: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HasAmount:
    """The span from the least to the greatest of its amounts in the range's currency meets the range."""

    range: AmountRange


@dataclass(frozen=True, slots=True, kw_only=True)
class HasText:
    """It is found by this text."""

    text: TextSearch


@dataclass(frozen=True, slots=True)
class And:
    """All of them hold."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of them holds."""

    parts: tuple["Condition", ...]


@dataclass(frozen=True, slots=True)
class Not:
    """It does not hold."""

    part: "Condition"


Condition: TypeAlias = Has | HasKey | HasTime | HasAmount | HasText | And | Or | Not


def conjuncts(condition: Condition) -> Iterator[Condition]:
    """The conditions that must all hold for this one to hold: itself, or the parts of its `And`."""
    if isinstance(condition, And):
        for part in condition.parts:
            yield from conjuncts(part)
    else:
        yield condition
