"""What a search for trails may ask for: the parameters of its operation."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from audit_api.logs import Logs
from audit_api.parameters import Parameter, decode_bounds, decode_cursor, time, whole_number
from audit_api.settings import ApiSettings
from correlator.index import AmountRange, TextSearch, TrailQuery
from correlator.index.filters import MAX_FILTER, parse_filter
from correlator.index.vocabulary import KINDS, STATUSES
from correlator.index.words import MAX_TEXT

__all__ = ["cursor_parser", "search_parameters", "search_query"]


def cursor_parser(logs: Logs) -> Callable[[str], Any]:
    """Reads the cursors of searches over these logs; it raises ValueError for what is none."""
    return decode_bounds(len(logs.all)) if logs.cut else decode_cursor


def search_query(values: Mapping[str, Any]) -> TrailQuery:
    """The conditions among the values of `search_parameters`."""
    named = ("tenant", "transaction", "key", "service", "since", "until", "status", "kind", "amount", "text")
    return TrailQuery(condition=values["filter"], **{name: values[name] for name in named})


def search_parameters(logs: Logs, settings: ApiSettings) -> tuple[Parameter, ...]:
    """Conditions, cursor and limit."""
    text = {"type": "string", "minLength": 1, "maxLength": 1000}
    return (
        Parameter(name="transaction", about="The transaction ID.", schema=text, parse=_not_empty, example="PAY-1"),
        Parameter(
            name="key",
            about="A business key: its name, a colon, its value.",
            schema={"type": "string", "pattern": "^[^:]+:.+$", "maxLength": 1000},
            parse=_key,
            default=None,
            example="order_id:O-1",
        ),
        Parameter(name="service", about="A service that took part.", schema=text, parse=_not_empty, example="ledger"),
        Parameter(
            name="since",
            about="The trail's span of stated times ends at or after this RFC 3339 time.",
            schema={"type": "string", "format": "date-time"},
            parse=time,
            example="2026-01-01T00:00:00Z",
        ),
        Parameter(
            name="until",
            about="The trail's span of stated times begins before this RFC 3339 time.",
            schema={"type": "string", "format": "date-time"},
            parse=time,
            example="2027-01-01T00:00:00+01:00",
        ),
        Parameter(
            name="status",
            about="The newest verdict, else `error`, `gap` or `ok`.",
            schema={"type": "string", "enum": list(STATUSES)},
            parse=_one_of(STATUSES),
            example="complete",
        ),
        Parameter(
            name="kind",
            about="The trail's family.",
            schema={"type": "string", "enum": list(KINDS)},
            parse=_one_of(KINDS),
            example="transaction",
        ),
        Parameter(
            name="amount",
            about="The span of the trail's amounts in a currency (ISO 4217) meets this range, bounds included: "
            "`EUR:10..20`, `EUR:10..`, `EUR:..20`, `EUR:12.50`.",
            schema={"type": "string", "pattern": "^[A-Za-z]{3}:.+$", "maxLength": 100},
            parse=AmountRange.parse,
            default=None,
            example="EUR:10..20",
        ),
        Parameter(
            name="text",
            about="Words, all of which must be found, in any case: each as the value of the trail's own id or of one of "
            "its keys, whole, or as a word of the name of a service or an event. `refund*` finds what begins so.",
            schema={"type": "string", "minLength": 1, "maxLength": MAX_TEXT},
            parse=TextSearch.parse,
            default=None,
            example="payment rec*",
        ),
        Parameter(
            name="filter",
            about="Conditions combined with `and`, `or`, `not` and brackets; the grammar is in docs/api.md. It holds beside the "
            "other parameters. `position` of a problem says where it cannot be read.",
            schema={"type": "string", "minLength": 1, "maxLength": MAX_FILTER},
            parse=parse_filter,
            default=None,
            example="service = ledger and (status != ok or amount.EUR >= 1000)",
        ),
        Parameter(name="tenant", about="The tenant.", schema=text, parse=_not_empty, example=None),
        Parameter(
            name="cursor",
            about="`next` of the page before, with the same conditions.",
            schema={"type": "string", "maxLength": 1000 if logs.cut else 100},
            parse=cursor_parser(logs),
            default=None,
        ),
        Parameter(
            name="limit",
            about="Most trails on the page.",
            schema={"type": "integer", "minimum": 1, "maximum": settings.page_trails, "default": 50},
            parse=whole_number(1, settings.page_trails),
            default=min(50, settings.page_trails),
            example=20,
        ),
    )


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("it is empty")
    return text


def _key(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not (name and colon and value):
        raise ValueError("it is not a key's name, a colon, and its value")
    return name, value


def _one_of(words: Sequence[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"it is none of {', '.join(words)}")
        return text

    return parse
