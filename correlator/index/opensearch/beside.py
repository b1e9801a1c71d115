"""What lies in the index beside the trails that a check compares: what each document is, by its id and its content. Pure.

Every document of ours has an id that follows from what is in it, lies where that id puts it, and says in its version with how many leaves it was
written. One that does not was put there by somebody else, and a search may find by it what the log does not hold.
"""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from correlator.errors import StateUnknown
from correlator.index.opensearch.documents import MARK, opened, opened_page

if TYPE_CHECKING:
    from correlator.index.opensearch.access import Named

__all__ = ["Beside", "beside_of", "beside_search", "has_content"]

_ID = re.compile(r"([0-9a-f]{64})(?:-(leaves|links)-(0|[1-9][0-9]{0,17})|-(keys)-[0-9a-f]{32})?", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beside:
    """A document beside the trails compared.

    Attributes:
        id: the document's.
        written: how many leaves the index had with it, as its version says.
        kind: ``trail``; a page of ``keys``; a chunk of ``leaves`` or of ``links``; ``mark``; empty: none of these.
        trail: of a trail and a page.
        of: of a chunk, the id of its trail's document.
        at: of a chunk, its number.
        keys: of a page.
    """

    id: str
    written: int
    kind: Literal["trail", "keys", "leaves", "links", "mark", ""] = ""
    trail: str = ""
    of: str = ""
    at: int = 0
    keys: tuple[tuple[str, str], ...] = ()


def beside_search(size: int) -> dict[str, Any]:
    """The query for all documents but those of trails that begin below leaf `size`, and for all that do not lie where their id puts them."""
    no_trail = {"bool": {"must_not": [{"exists": {"field": "firstLeaf"}}]}}
    either = [no_trail, {"range": {"firstLeaf": {"gte": size}}}, {"exists": {"field": "_routing"}}]
    return {"bool": {"should": either, "minimum_should_match": 1}}


def has_content(id_: str) -> bool:
    """Whether what a document of this id is shows in its content."""
    found = _ID.fullmatch(id_)
    return found is not None and found[2] is None


def beside_of(named: "Named", data: bytes) -> Beside:
    """What a document is; `data`: its content, of one that `has_content`."""
    id_, written = named.id, named.version
    found = _ID.fullmatch(id_)
    if named.routing:  # put where a search finds it, and a get does not
        return Beside(id=id_, written=written)
    if id_ == MARK:
        return Beside(id=id_, written=written, kind="mark")
    if found is None:
        return Beside(id=id_, written=written)
    if found[2] is not None:
        kind: Literal["leaves", "links"] = "leaves" if found[2] == "leaves" else "links"
        return Beside(id=id_, written=written, kind=kind, of=found[1], at=int(found[3]))
    try:
        if found[4] is None:
            return Beside(id=id_, written=written, kind="trail", trail=opened(id_, data).trail)
        trail, keys = opened_page(id_, data)
    except StateUnknown:
        return Beside(id=id_, written=written)
    return Beside(id=id_, written=written, kind="keys", trail=trail, keys=tuple(keys))
