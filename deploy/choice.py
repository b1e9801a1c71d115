"""From what a person typed to the one trail that is meant; the attempt is on record even when there is none."""

from collector.errors import NotFound
from correlator.index import TrailSummary
from deploy.reading import Ledger
from deploy.recording import Record
from deploy.remote import RemoteLedger
from deploy.session import Failure

__all__ = ["the_one"]

MAX_SHOWN = 20


def the_one(ledger: Ledger | RemoteLedger, text: str, *, tenant: str, record: Record, action: str) -> TrailSummary:
    """The trail that `text` means.

    Raises:
        Failure: nothing is known under it, or several trails are, which are then listed.
    """
    found = ledger.find(text, tenant=tenant)
    if len(found) == 1:
        return found[0]
    record(action=action, trail="", head=-1, refused="not found" if not found else "ambiguous")
    if not found:
        keys = ", ".join(ledger.key_names) or "none are declared"
        raise Failure(
            f"nothing is known of {text!r}: it is no trail id, transaction ID or trace id, and no value of a key ({keys})"
        )
    shown = "\n".join(f"  {summary.trail}" for summary in found[:MAX_SHOWN])
    more = f"\n  and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
    raise Failure(f"{text!r} is in several trails; say which:\n{shown}{more}")


def summary_of(ledger: Ledger, trail: str) -> TrailSummary:
    """The summary of a whole trail id; raises `Failure`."""
    try:
        return ledger.summary(trail)
    except NotFound as error:
        raise Failure(str(error)) from error
