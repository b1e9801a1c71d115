"""Parts that several answers have: checkpoints, hashes, summaries, and entries for those who may not see all of them."""

import base64
from collections.abc import Sequence
from typing import Any

import msgspec

from audit_api.evidence import LoggedEntry, SignedTree
from collector.errors import Malformed, VerificationError
from collector.event import Facts, decode_facts
from correlator.index import TrailSummary
from correlator.retired import RetiredMonth

__all__ = ["MAX_LINKS", "base64_list", "checkpoint_json", "retired_json", "skeleton", "summary_json"]

MAX_LINKS = 200
"""Most linked trails that an answer lists."""

_encode = msgspec.json.Encoder().encode


def base64_list(hashes: Sequence[bytes]) -> list[str]:
    """Each hash in base64 (RFC 4648 section 4)."""
    return [base64.b64encode(part).decode("ascii") for part in hashes]


def checkpoint_json(tree: SignedTree) -> bytes:
    """A checkpoint as the answers tell it: what it says, and the signed note verbatim."""
    checkpoint = tree.checkpoint
    return _encode(
        {
            "origin": checkpoint.origin,
            "size": checkpoint.size,
            "root": base64.b64encode(checkpoint.root).decode("ascii"),
            "note": tree.signed.decode("utf-8"),
        }
    )


def summary_json(summary: TrailSummary) -> dict[str, Any]:
    """What the index tells of a trail, as answers tell it."""
    return {
        "trail": summary.trail,
        "status": summary.status,
        "entries": summary.entries,
        "first_leaf": summary.first_leaf,
        "last_leaf": summary.last_leaf,
        "first_time": summary.first_time or None,
        "last_time": summary.last_time or None,
        "services": summary.services,
        "events": summary.events,
        "keys": [{"name": name, "value": value} for name, value in summary.keys],
        "amounts": [{"currency": name, "least": least, "most": most} for name, least, most in summary.amounts],
        "links": summary.links[:MAX_LINKS],
        "links_left_out": summary.links_left_out + max(0, len(summary.links) - MAX_LINKS),
        "hub": summary.hub,
    }


def retired_json(one: RetiredMonth | None) -> dict[str, Any] | None:
    """Why an event is not there any more, as answers tell it."""
    if one is None:
        return None
    return {"month": one.retirement.month, "leaf": one.leaf, "recorded": one.recorded, "by": one.by}


def skeleton(one: LoggedEntry) -> bytes:
    """What the role sre sees of an entry: what happened where and when, and how it ended."""
    entry = one.entry
    row: dict[str, Any] = {
        "leaf": one.leaf,
        "position": entry.position,
        "kind": entry.kind,
        "recorded": entry.recorded,
    }
    if entry.kind == "event":
        facts = _facts(one)
        row |= {
            "stream": entry.stream,
            "sequence": entry.sequence,
            "time": facts.time or None,
            "service": facts.service,
            "name": facts.name,
            "outcome": facts.outcome,
            "error": facts.error,
        }
    elif entry.kind in ("verdict", "gap"):
        row["detail"] = entry.detail
    return _encode(row)


def _facts(one: LoggedEntry) -> Facts:
    try:
        return decode_facts(bytes(one.entry.facts))
    except Malformed as error:
        raise VerificationError(f"the facts of leaf {one.leaf} cannot be read: {error}") from error
