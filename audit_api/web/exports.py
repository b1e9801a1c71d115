"""What a trail can be taken away as: a row for each format that the API has or may have. A new one is one more row, and its two texts."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from audit_api.auth import Role
from audit_api.gate import Operation

__all__ = ["EXPORTS", "Export", "exports_for", "offered"]

_ANYONE: frozenset[Role] = frozenset({"auditor", "sre", "admin"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """One format.

    Attributes:
        key: of its texts in the catalogue, ``exports.<key>`` and ``exports.<key>_about``.
        path: where it is had; ``{trail}`` stands for the trail id.
        format: offered only where the API's operation takes this ``format``; empty: always.
        roles: who may.
    """

    key: str
    path: str
    format: str = ""
    roles: frozenset[Role] = frozenset({"auditor", "admin"})


EXPORTS: Sequence[Export] = (
    Export(key="bundle", path="/v1/exports/{trail}"),
    Export(key="bundle_alone", path="/v1/exports/{trail}?linked=false"),
    Export(key="bundle_entries", path="/v1/exports/{trail}?events=false"),
    *(
        Export(key=name, path=f"/v1/exports/{{trail}}?format={name}", format=name)
        for name in ("pdf", "csv", "parquet", "ndjson", "ocsf", "ecs")
    ),
    Export(key="json", path="/v1/trails/{trail}?proofs=true", roles=_ANYONE),
)


def offered(operations: Iterable[Operation]) -> frozenset[str]:
    """The formats that the API's own operation takes, as it declares them; none where it has but bundles."""
    for operation in operations:
        for parameter in operation.parameters if operation.operation_id == "exportTrail" else ():
            if parameter.name == "format":
                return frozenset(parameter.schema.get("enum", ()))
    return frozenset()


def exports_for(trail: str, roles: frozenset[Role], formats: frozenset[str]) -> list[tuple[str, str]]:
    """Key and address of each format that these roles may have this trail in, of those that are offered."""
    return [
        (one.key, one.path.format(trail=trail))
        for one in EXPORTS
        if not roles.isdisjoint(one.roles) and (not one.format or one.format in formats)
    ]
