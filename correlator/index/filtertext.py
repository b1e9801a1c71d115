"""A condition as a filter's text, which `correlator.index.filters.parse_filter` reads as the same condition. Pure."""

from correlator.index.amounts import LEAST, MOST, number_of
from correlator.index.condition import And, Condition, Has, HasAmount, HasKey, HasText, HasTime, Not, Or

__all__ = ["filter_text"]


def filter_text(condition: Condition) -> str:
    """The condition as a filter, with more brackets and quotes than a person would set."""
    match condition:
        case And(parts):
            return " and ".join(f"({filter_text(part)})" for part in parts)
        case Or(parts):
            return " or ".join(f"({filter_text(part)})" for part in parts)
        case Not(part):
            return f"not ({filter_text(part)})"
        case Has():
            return f"{condition.field} in ({', '.join(map(_quoted, condition.values))})"
        case HasKey():
            return f"key.{_quoted(condition.name)} in ({', '.join(map(_quoted, condition.values))})"
        case HasTime():
            return f"time {condition.than} {condition.time}"
        case HasText():
            terms = (term.text + "*" * term.prefix for term in condition.text.terms)
            return f"text ~ {_quoted(' '.join(terms))}"
        case HasAmount(range=span):
            if span.most == MOST:
                return f"amount.{span.currency} >= {number_of(span.least)}"
            if span.least == LEAST:
                return f"amount.{span.currency} <= {number_of(span.most)}"
            return f"amount.{span.currency} in {number_of(span.least)}..{number_of(span.most)}"


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
