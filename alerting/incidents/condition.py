"""What may be wrong, and for how long it must be before it counts. Pure."""

from dataclasses import dataclass

__all__ = ["Condition", "Patience"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A control fails, or works.

    Attributes:
        cause: one of `correlator.incidents.CAUSES`.
        subject: whom or what it concerns; empty: the installation.
        fails: whether it fails.
        time_ns: since when, in Unix time.
        detail: what was seen, in words; names no person and no secret.
        mark: where a log says it, that entry's log and leaf, so that reading it again tells nothing new; else empty.
        first, last: the sequences that are affected; −1: not known.
    """

    cause: str
    subject: str = ""
    fails: bool
    time_ns: int
    detail: str
    mark: str = ""
    first: int = -1
    last: int = -1


class Patience:
    """Of what is asked again and again: it counts as failed, or as working again, when it was that for `seconds` without a break.

    One failure is no incident, and one answer between two is no end of one. It counts from the first of the answers.
    """

    def __init__(self, seconds: float) -> None:
        self._least_ns = int(seconds * 1e9)
        self._since: dict[tuple[str, str], tuple[bool, int]] = {}

    def look(self, seen: Condition) -> Condition | None:
        """The condition as it has been for long enough, with the time at which it began; None while that is open.

        `seen.time_ns` is the time of this look.
        """
        key = (seen.cause, seen.subject)
        fails, since_ns = self._since.get(key, (not seen.fails, 0))
        if fails != seen.fails or since_ns > seen.time_ns:  # it changed, or the clock went back
            since_ns = seen.time_ns
            self._since[key] = (seen.fails, since_ns)
        if seen.time_ns - since_ns < self._least_ns:
            return None
        return Condition(cause=seen.cause, subject=seen.subject, fails=seen.fails, time_ns=since_ns, detail=seen.detail)
