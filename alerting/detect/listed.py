"""The rule over a list of names that somebody provides: sanctioned parties, mule accounts, stolen devices.

Names are compared whole, after Unicode NFKC, case folding and collapsing of spaces. Similar names are not found: that is a
screening product's job, and its list of hits can be given here.
"""

import unicodedata
from pathlib import Path
from typing import Literal

from alerting.detect.payment import Payment
from alerting.detect.rule import Rule, Watch
from collector.errors import Malformed

__all__ = ["ListedRule", "read_list"]

MAX_LIST_BYTES = 64 * 1024**2


class ListedRule(Rule, frozen=True, kw_only=True, tag="listed"):
    """A payment of, to, with or from what stands in a list.

    Attributes:
        file: UTF-8, a name a line; lines that are empty or begin with # are left out.
        fields: of the payment that are looked up.
    """

    file: str
    fields: tuple[Literal["account", "counterparty", "device", "country"], ...] = ("account", "counterparty")

    def watch(self) -> Watch:
        """See `Rule.watch`. Raises `Malformed` when the list cannot be read."""
        return _Listed(self, read_list(Path(self.file)))


class _Listed:
    def __init__(self, rule: ListedRule, names: frozenset[str]) -> None:
        self._rule = rule
        self._names = names

    def look(self, payment: Payment) -> str:
        for field in self._rule.fields:
            value: str = getattr(payment, field)
            if value and _folded(value) in self._names:
                return f"its {field} is on the list {Path(self._rule.file).name}"
        return ""


def read_list(path: Path) -> frozenset[str]:
    """The names of a list, as they are compared.

    Raises:
        Malformed: it cannot be read, is no UTF-8, too long, or empty (a list of nothing would find nothing and say so to nobody).
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_LIST_BYTES + 1)
    except OSError as error:
        raise Malformed(f"{path}: {error.strerror or error}", where="file") from error
    if len(data) > MAX_LIST_BYTES:
        raise Malformed(f"{path}: longer than {MAX_LIST_BYTES:,} bytes", where="file")
    try:
        lines = data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise Malformed(f"{path}: not UTF-8 at byte {error.start}", where="file") from error
    names = frozenset(name for line in lines if not line.startswith("#") and (name := _folded(line)))
    if not names:
        raise Malformed(f"{path}: holds no name", where="file")
    return names


def _folded(name: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", name).casefold().split())
