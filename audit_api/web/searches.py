"""Saved searches on the page: the forms that keep and delete one, and the way from a search to its form and back."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from audit_api.auth import Principal
from audit_api.bodies import FORM
from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.parameters import time as api_time
from audit_api.problems import Problem
from audit_api.savedsearches import SavedSearches, SearchTold
from audit_api.searchshelf import SavedSearch
from audit_api.web.frame import HEADERS, PREFIX
from audit_api.web.locales import local_to_rfc3339, zone_of
from collector.errors import Malformed
from correlator.index import AmountRange

__all__ = ["ANY_KIND", "SearchForms", "address_of", "conditions_of"]

ANY_KIND = "any"
_PLAIN = ("text", "transaction", "key", "service", "status", "tenant", "filter")
_ALL = "all"
_OF_TENANT = "tenant:"
_MAX_TENANTS = 50


def conditions_of(fields: Mapping[str, str]) -> dict[str, str]:
    """The API's parameters for what the form of the search says; raises `Problem` for a time or a zone that is none."""
    given = {name: text.strip() for name, text in fields.items() if text.strip()}
    found = {name: given[name] for name in _PLAIN if name in given}
    kind = given.get("kind", "transaction")
    if kind != ANY_KIND:
        found["kind"] = kind
    for name in ("since", "until"):
        if name not in given:
            continue
        try:
            found[name] = api_time(local_to_rfc3339(given[name], zone_of(given.get("zone", "UTC"))))
        except (ValueError, Malformed, OverflowError) as error:
            raise Problem("bad-body", f"{name}: {error}") from error
    if any(name in given for name in ("currency", "least", "most")):
        least, most = given.get("least", ""), given.get("most", "")
        found["amount"] = f"{given.get('currency', '?')}:{least}..{most}"
    return found


def address_of(conditions: Mapping[str, str]) -> str:
    """Where the page shows what a search finds; its times stand in the form in UTC."""
    shown = {name: conditions[name] for name in _PLAIN if name in conditions}
    shown["kind"] = conditions.get("kind", ANY_KIND)
    for name in ("since", "until"):
        if name in conditions:
            whole, _, fraction = api_time(conditions[name]).partition(".")
            shown[name] = conditions[name] if fraction.strip("0Z") else whole
    if "amount" in conditions:
        currency, _, span = conditions["amount"].partition(":")
        least, dots, most = span.partition("..")
        AmountRange.parse(conditions["amount"])
        shown |= {"currency": currency, "least": least, "most": most if dots else least}
    return f"{PREFIX}/trails?{urlencode({name: text for name, text in shown.items() if text})}"


@dataclass(frozen=True, slots=True, kw_only=True)
class SearchForms:
    """What the search page shows of saved searches, and where its forms go.

    Attributes:
        searches: the operations on them.
    """

    searches: SavedSearches

    def operations(self) -> list[Operation]:
        """Keep one, delete one."""
        save, delete = (one for one in self.searches.operations() if one.operation_id in ("saveSearch", "deleteSearch"))
        common: dict[str, Any] = {
            "method": "POST",
            "success": 303,
            "tag": "page",
            "about": "",
            "scoped": True,
            "body_limit_bytes": 16_384,
            "body_types": {FORM: ("SearchTold", None)},
        }
        return [
            Operation(
                operation_id="saveSearchPage",
                path=f"{PREFIX}/searches",
                summary=save.summary,
                action=save.action,
                roles=save.roles,
                read=self.save,
                **common,
            ),
            Operation(
                operation_id="deleteSearchPage",
                path=f"{PREFIX}/searches/{{search}}",
                summary=delete.summary,
                action=delete.action,
                roles=delete.roles,
                target=delete.target,
                path_parameters=delete.path_parameters,
                read=self.delete,
                **common,
            ),
        ]

    async def save(self, call: Call, run: Runner) -> Reading:
        """Keep what the form says, and show what it finds."""
        seen = call.form.get("seen", "")
        told = SearchTold(
            name=call.form.get("name", "").strip(),
            conditions=conditions_of(call.form),
            shared=bool(seen),
            tenant=seen.removeprefix(_OF_TENANT) if seen.startswith(_OF_TENANT) else "",
        )
        kept = await run(self.searches.keep, call, told)
        return _go(address_of(kept.conditions))

    async def delete(self, call: Call, run: Runner) -> Reading:
        """It is gone."""
        await run(self.searches.discard, call)
        return _go(f"{PREFIX}/trails")

    async def shown(self, call: Call, run: Runner, here: str) -> dict[str, Any]:
        """For the template: the searches that are seen, with the one that is shown `here`, and with whom one may be shared."""
        found: Sequence[SavedSearch] = await run(self.searches.seen_by, call)
        assert call.principal is not None
        return {
            "kept": [_row(one, call, here) for one in found],
            "sharing": _sharing(call.principal),
        }


def _row(search: SavedSearch, call: Call, here: str) -> dict[str, Any]:
    own = call.principal is not None and search.principal == call.principal.name
    address = address_of(search.conditions)
    return {
        "id": search.id,
        "name": search.name,
        "by": "" if own else search.principal,
        "shared": search.shared,
        "tenant": search.tenant,
        "address": address,
        "here": address == here,
        "deletable": own or call.has_role("admin"),
    }


def _sharing(principal: Principal) -> list[tuple[str, str]]:
    """With whom the principal may share: the form's value, and the tenant; everybody is no tenant."""
    tenants = principal.scope.tenants
    if tenants is None:
        return [(_ALL, "")]
    return [(f"{_OF_TENANT}{name}", name) for name in sorted(tenants)[:_MAX_TENANTS]]


def _go(address: str) -> Reading:
    return Reading(body=b"", media_type="text/plain", headers={**HEADERS, "Location": address})
