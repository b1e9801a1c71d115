"""How long events are kept: the table ``[retention]`` of ``tally.toml``, and what it means for a month. Pure."""

import re
from typing import Annotated

import msgspec

__all__ = ["RetentionSettings", "why_kept"]

_MONTH = re.compile(r"\d{4}\.(?:0[1-9]|1[0-2])", re.ASCII)


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When `tally retain` lets go of events. By default never.

    Attributes:
        keep_months: so many whole months are kept beside the current one; 0: all. A month is that in which a batch was first shipped,
            or, if it came into the log later, that in which it did.
        holds: months that are kept whatever `keep_months` says, ``"2026.01"``, each with the reason: a legal hold.
    """

    keep_months: Annotated[int, msgspec.Meta(ge=0, le=1_200)] = 0
    holds: dict[str, str] = {}

    def __post_init__(self) -> None:
        """Refuse a hold of what is no month: it would hold nothing."""
        for month in self.holds:
            if _MONTH.fullmatch(month) is None:
                raise ValueError(f"retention.holds names {month!r}, which is no month: write it like 2026.01")


def why_kept(month: str, today: str, settings: RetentionSettings) -> str:
    """Why a month's events stay, in words; empty when they are to go.

    Args:
        month: ``2026.01``.
        today: the current time, RFC 3339.
        settings: the policy.
    """
    if _MONTH.fullmatch(month) is None:
        return "it is no month that we know"
    current = _ordinal(today[:4], today[5:7])
    age = current - _ordinal(month[:4], month[5:7])
    if age <= 0:
        return "the current month" if age == 0 else "it is in the future"
    if month in settings.holds:
        return f"held: {settings.holds[month]}"
    if not settings.keep_months:
        return "retention.keep_months is 0: everything is kept"
    if age <= settings.keep_months:
        year, last = divmod(_ordinal(month[:4], month[5:7]) + settings.keep_months + 1, 12)
        return f"kept until {year:04d}.{last + 1:02d}"
    return ""


def _ordinal(year: str, month: str) -> int:
    return int(year) * 12 + int(month) - 1
