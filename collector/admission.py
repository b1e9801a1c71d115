"""Admission to the spool: which events of a group are new, and the frame that holds them. Re-sends are recognised by their ids.

Ids stand in a frame as their senders made them, bytes of a trace among them. One in which a frame may begin is replaced by its digest: else a sender could
write a whole frame into another, and what a crash has torn would be taken for damage, because a later frame stands in it.
"""

import hashlib
from collections.abc import Sequence

from collector.frame import MAGIC, write_frame
from collector.group import Group, Spooled
from collector.segments import SourceIds

__all__ = ["admit"]


def admit(
    group: Group, *, first: int, durable: int, journal: SourceIds, seen_now: set[bytes], fresh_ids: list[bytes]
) -> tuple[Spooled, bytes | None]:
    """What becomes of a group, and the frame to write for it; None when all of it is known.

    Args:
        group: to be written.
        first: the sequence that its first event gets.
        durable: all sequences below it are on disk.
        journal: the ids that are remembered.
        seen_now: those of the groups that are written together with this one; added to.
        fresh_ids: those to remember once the frame is on disk; added to.

    Raises:
        Overloaded: the journal does not answer.
    """
    source_ids = _without_frames(group.source_ids)
    ids = [group.group_id, *source_ids]
    known = journal.known(ids)
    known.update(one for one in ids if one in seen_now)
    total = len(group.events)
    if group.group_id and group.group_id in known:
        return Spooled(first=first, stored=0, duplicates=total), None
    keep: list[int] = []
    for at, one in enumerate(source_ids):
        if not one:
            keep.append(at)
        elif one not in known:
            known.add(one)  # the same id twice in one group is a duplicate, too
            keep.append(at)
            fresh_ids.append(one)
            seen_now.add(one)
    if group.group_id:
        fresh_ids.append(group.group_id)
        seen_now.add(group.group_id)
    whole = len(keep) == total
    if not keep and not group.group_id:
        return Spooled(first=first, stored=0, duplicates=total), None
    frame = write_frame(
        first=first,
        durable=durable,
        group_id=group.group_id,
        source_ids=source_ids if whole else [source_ids[at] for at in keep],
        events=group.events if whole else [group.events[at] for at in keep],
        facts=group.facts if whole else [group.facts[at] for at in keep],
    )
    spooled = Spooled(first=first, stored=len(keep), duplicates=total - len(keep), kept=() if whole else keep)
    return spooled, frame


def _without_frames(source_ids: Sequence[bytes]) -> Sequence[bytes]:
    """Looked for in all of them at once: none ends where the next goes on, as each begins with its kind, or is a digest."""
    if MAGIC not in b"".join(source_ids):
        return source_ids
    return [hashlib.sha256(one).digest() if MAGIC in one else one for one in source_ids]
