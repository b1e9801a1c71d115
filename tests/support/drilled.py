"""What must hold after every drill."""

from __future__ import annotations

from drills.story import Outcome

__all__ = ["holds"]


def holds(outcome: Outcome, *, at_least: int) -> None:
    """Nothing acknowledged is missing, doubled or out of order, everything checks, and so many events were acknowledged."""
    account = outcome.account
    assert outcome.senders.odd == []
    assert (account.lost, account.doubled, account.disordered, account.holes) == ([], [], [], [])
    assert account.findings == []
    assert [what for what, count in outcome.broken().items() if count] == []
    assert account.acknowledged >= at_least
