"""What the matrix knows of a sender: how it is run, what its way in promises, and so what must hold at the end."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Place", "Sender"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where one run of a sender is.

    Attributes:
        folder: an empty one, for what the sender's program writes.
        events: how many it sends.
        addresses: of the collector, `host:port` by way in; empty while its settings are made.
    """

    folder: Path
    events: int
    addresses: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """A row of the matrix.

    Attributes:
        name: one word.
        title: what it is, for the table.
        way: the way in, for the table.
        command: gives the command that sends, and ends when everything is acknowledged, given up, or handed on.
            It prints JSON lines: ``{"acked": [numbers]}``, ``{"failed": [numbers], "why": text}``, ``{"given_up": count, "why": text}`` of events
            without numbers, or ``{"sent": count}``.
        settings: gives the collector's TOML that the way in needs; called before the collector starts.
        tells: whether the program says of each event what became of it.
        gives_up: whether the sender has a last attempt, after which it tells its application that it failed.
        ids: ``always``: what it sends again is recognised; ``never``: its protocol has no ids, so it may be stored again.
        acked: whether its protocol acknowledges. Where it does not, what was under way when the collector was killed may be lost.
        numbered: whether its events carry numbers; else they are only counted.
        in_ci: whether it is built and run fast enough for every change.
    """

    name: str
    title: str
    way: str
    command: Callable[[Place], list[str]]
    settings: Callable[[Place], str] = lambda _: ""
    tells: bool = True
    gives_up: bool = False
    ids: Literal["always", "never"] = "always"
    acked: bool = True
    numbered: bool = True
    in_ci: bool = True
