"""What a trail can be taken away as: a row for each format that the API has. A new operation is one more row."""

from collections.abc import Sequence
from dataclasses import dataclass

from audit_api.auth import Role

__all__ = ["EXPORTS", "Export", "exports_for"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One format.

    Attributes:
        key: of its texts in the catalogue, ``exports.<key>`` and ``exports.<key>_about``.
        path: where it is had; ``{trail}`` stands for the trail id.
        roles: who may.
    """

    key: str
    path: str
    roles: frozenset[Role] = frozenset({"auditor", "admin"})


EXPORTS: Sequence[Export] = (
    Export(key="bundle", path="/v1/exports/{trail}"),
    Export(key="bundle_alone", path="/v1/exports/{trail}?linked=false"),
    Export(key="bundle_entries", path="/v1/exports/{trail}?events=false"),
    Export(key="json", path="/v1/trails/{trail}?proofs=true", roles=frozenset({"auditor", "sre", "admin"})),
)


def exports_for(trail: str, roles: frozenset[Role]) -> list[tuple[str, str]]:
    """Key and address of each format that these roles may have this trail in."""
    return [(one.key, one.path.format(trail=trail)) for one in EXPORTS if not roles.isdisjoint(one.roles)]
