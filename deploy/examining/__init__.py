"""Examines an installation: does everything hold that the configuration relies on, and what mends it where it does not?

A module a subject; each asks, judges, and puts `Check`s on a `Chart`. Nothing here changes anything: files are read, servers are asked
what they know. What cannot be asked, or is not answered, is told as unknown, never as fine. `whole.py` puts all of it together.
"""

from typing import Literal

import msgspec

__all__ = ["Chart", "Check", "Outcome"]

Outcome = Literal["ok", "warning", "failed", "unknown"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that was looked at.

    Attributes:
        subject: what it belongs to: ``configuration``, ``data folder``, ``keys``, ``store`` …
        name: what was looked at.
        outcome: ``ok``; ``warning``: it works, and not as it should, or not for long; ``failed``: it does not work, or not safely;
            ``unknown``: it could not be told.
        found: what was found, in words.
        mend: what helps, a line each: a command or a setting to be copied, or a sentence; empty when it is ok.
    """

    subject: str
    name: str
    outcome: Outcome
    found: str
    mend: tuple[str, ...] = ()


class Chart:
    """The checks of one subject, in the order in which they were made."""

    def __init__(self, subject: str) -> None:
        self.subject = subject
        self.checks: list[Check] = []

    def ok(self, name: str, found: str) -> None:
        """It is as it should be."""
        self._add(name, "ok", found)

    def warn(self, name: str, found: str, *mend: str) -> None:
        """It works, and not as it should, or not for long."""
        self._add(name, "warning", found, *mend)

    def fail(self, name: str, found: str, *mend: str) -> None:
        """It does not work, or not safely."""
        self._add(name, "failed", found, *mend)

    def unknown(self, name: str, found: str, *mend: str) -> None:
        """It could not be told."""
        self._add(name, "unknown", found, *mend)

    def _add(self, name: str, outcome: Outcome, found: str, *mend: str) -> None:
        self.checks.append(Check(subject=self.subject, name=name, outcome=outcome, found=found, mend=mend))
