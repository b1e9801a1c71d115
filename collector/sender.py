"""Who sends: a way in, and one of its connections. What is shared is shared between these."""

from typing import NamedTuple

__all__ = ["OURSELVES", "TAKEN_OVER", "Sender"]


class Sender(NamedTuple):
    """See the module.

    Attributes:
        way: the way in, as the settings call it; empty: ourselves, who are not held to a share.
        connection: any number that tells the connections of a way from one another, where there are such.
    """

    way: str = ""
    connection: int = 0


OURSELVES = Sender()

TAKEN_OVER = Sender(connection=1)
"""Ourselves, with what a forked stream's spool holds: it is on the disk already, so it is let in whatever else there is."""
