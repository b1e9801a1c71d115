"""The errors that callers of the collector act on; each says who raises it and what to do.

    TallyError
    ├── Malformed          receivers, event.py: this input is not what its format says; it goes to the dead letters
    │   └── TooLarge       spool, intake, receivers: there is never room for this group or request; waiting does not help
    ├── Overloaded         spool, stores, recorder: a limit is reached; try again after `retry_after_seconds`
    ├── Conflict           stores, log storage: something else already stands under this name
    ├── NotFound           stores, log storage, index: nothing stands under this name (an error is never an absence)
    ├── StateUnknown       spool, log: what is on disk is not what I wrote; stop, reload, carry on
    └── VerificationError  every check of a hash, signature or proof, and every parser of signed material

Drivers' own errors (sqlite3, lmdb, OSError where it means one of these) are wrapped at the seam, with the original as
``__cause__``.
"""


class TallyError(Exception):
    """Base of every error that Tallystick raises on purpose."""


class Malformed(TallyError):
    """Input that is not what its format says.

    Args:
        reason: what is wrong, in words for the person who reads the dead letters; never holds the input itself.
        where: where in the input: a JSON path, a row number, a byte offset; empty when it is the whole.
        label: a short stable word for metrics (``tally_refused_total{reason="…"}``), from a closed set in the code.
    """

    def __init__(self, reason: str, *, where: str = "", label: str = "malformed") -> None:
        super().__init__(f"{where}: {reason}" if where else reason)
        self.reason = reason
        self.where = where
        self.label = label


class TooLarge(Malformed):
    """A group that is larger than all that the spool may hold, or a request of more than one may have: nothing of it was taken, and the same never will be.

    Who sent it must hear that. Who may cut it (`collector.receive.portions`) hands over less at a time.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason, label="too_large")


class Overloaded(TallyError):
    """A limit is reached and nothing was accepted; the same call may succeed after ``retry_after_seconds``."""

    def __init__(self, reason: str, *, retry_after_seconds: float = 1.0) -> None:
        super().__init__(reason)
        self.retry_after_seconds = retry_after_seconds


class Conflict(TallyError):
    """Something else already stands under this name (another batch under this number, another head)."""


class NotFound(TallyError):
    """Nothing stands under this name. Raised only when the store answered so, never when it did not answer."""


class StateUnknown(TallyError):
    """What is on disk is not what this process wrote: stop writing, reload, and carry on from what is found."""


class VerificationError(TallyError):
    """A hash, signature, proof or signed text does not hold. The message names the thing that failed.

    Args:
        reason: what does not hold, and of what, for people.
        label: a short stable word for who must tell failures apart: ``facts`` when a batch's facts are not what its header commits
            to; else empty.
    """

    def __init__(self, reason: str, *, label: str = "") -> None:
        super().__init__(reason)
        self.label = label
