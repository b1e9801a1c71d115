"""Parts that pages share: parameters of forms, and what every template is given."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from audit_api.gate import Call, Reading, Runner
from audit_api.parameters import Parameter
from audit_api.web.locales import Manner, locale_of, zone_of
from correlator.errors import VerificationError
from correlator.trail import parse_trail

__all__ = ["ZONE", "Page", "forgiving", "manner_of", "told_trail"]


def _zone(text: str) -> str:
    zone_of(text.strip())
    return text.strip() or "UTC"


ZONE = Parameter(name="zone", about="The zone of times.", schema={"type": "string"}, parse=_zone, default="UTC")


def forgiving(parameter: Parameter) -> Parameter:
    """The same parameter for a form, which sends its empty fields as well: an empty one is not given."""

    def parse(text: str) -> Any:
        return parameter.parse(text.strip()) if text.strip() else parameter.default

    return replace(parameter, parse=parse)


Page = Callable[[Call, Runner, Manner, Mapping[str, str]], Awaitable[Reading]]
"""Renders what was asked for, as its reader reads; the last is the query as it was sent, by name."""


def manner_of(language: str, values: Mapping[str, Any]) -> Manner:
    """How a reader reads: from the ``Accept-Language`` header and the parameter ``zone``."""
    name = values.get("zone", "UTC")
    return Manner(locale=locale_of(language), zone=zone_of(name), zone_name=name)


def told_trail(trail: str, known: Callable[[str, str], str]) -> Mapping[str, str]:
    """A trail id for people: its kind in words, and what is told apart by it."""
    try:
        parts = parse_trail(trail)
    except VerificationError:
        return {"trail": trail, "kind": "", "value": trail, "tenant": ""}
    kind = known(f"kinds.{parts.kind}", parts.kind)
    if parts.name:
        kind = f"{kind} {parts.name}"
    return {"trail": trail, "kind": kind, "value": parts.value, "tenant": parts.tenant}
