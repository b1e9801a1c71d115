"""What was sent away is itself on record: one entry for each start and end of a destination, in the trail ``access/siem:<name>``. Pure.

Not one for each record: it would be an entry of the log, sent on in its turn, and so on for ever. From a start, with where it begins and by which
settings, and an end, with how far it came, follows which leaves went where.
"""

import hashlib
from collections.abc import Mapping
from typing import Literal

import msgspec

from audit_api.siem.cursor import Position
from audit_api.siem.settings import AnyDestination
from collector.event import Access, Event, Origin, format_time

__all__ = ["SERVICE", "account_event", "declared"]

SERVICE = "tallystick-siem"


def declared(settings: AnyDestination) -> str:
    """Names a destination's settings: SHA-256 of their JSON in hex. Names of files are in it; what is in those is not."""
    return hashlib.sha256(msgspec.json.encode(settings, order="sorted")).hexdigest()


def account_event(
    action: Literal["start", "stop"],
    settings: AnyDestination,
    positions: Mapping[str, Position],
    *,
    changed: bool,
    now_ns: int,
) -> Event:
    """The event of a start or an end.

    Args:
        action: which of the two.
        settings: of the destination.
        positions: where it goes on, or how far it came, by the log's origin; empty: at its beginning.
        changed: whether the settings are others than those of the start before.
        now_ns: Unix time.
    """
    principal = f"siem:{settings.name}"
    leaves = {origin: position.next for origin, position in sorted(positions.items())}
    return Event(
        time=format_time(now_ns),
        observed=format_time(now_ns),
        event_name=f"access.siem.{action}",
        resource={"service.name": SERVICE},
        body=f"what the log says is sent on to {settings.place}" if action == "start" else "",
        attributes={
            "siem.destination": settings.name,
            "siem.place": settings.place,
            "siem.format": settings.format,
            "siem.start": settings.start,
            "siem.filter": settings.filter,
            "siem.entries": list(settings.entries),
            "siem.flows": list(settings.flows),
            "siem.tenants": list(settings.tenants),
            "siem.settings": declared(settings),
            "siem.changed": changed,
            "siem.next_leaves": leaves,
        },
        actor=principal,
        outcome="success",
        access=Access(principal=principal, action=f"siem.{action}"),
        origin=Origin(receiver="record"),
    )
