"""The operations on saved searches: keep one under a name, share it, change it, delete it. What it finds, its reader's scope decides.

Who keeps, changes or deletes one is on record like any other request. The search itself is a tool and no evidence: it is a file
(`audit_api.searchshelf`), not an entry, so that it can be deleted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote_to_bytes, urlencode

import msgspec
from starlette.requests import Request

from audit_api.gate import Call, Operation, Reading, Runner
from audit_api.identity.scope import RowScope
from audit_api.parameters import Parameter, parse_query
from audit_api.problems import Problem
from audit_api.revalidation import entity_tag
from audit_api.searchshelf import SavedSearch, SearchShelf
from audit_api.settings import ApiSettings
from collector.event import format_time

__all__ = ["SEARCH_SCHEMAS", "SavedSearches", "SearchTold"]

MAX_NAME = 80
_PATH = "/v1/searches"
_JSON = "application/json"
_PAGING = ("cursor", "limit")
_encode = msgspec.json.Encoder().encode


class SearchTold(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is sent to keep a search."""

    name: str
    conditions: dict[str, str]
    shared: bool = False
    tenant: str = ""


_EXAMPLE = {
    "id": "0123456789abcdef0123456789abcdef",
    "name": "left open, large",
    "principal": "ann",
    "own": True,
    "conditions": {"kind": "transaction", "status": "incomplete", "amount": "EUR:1000.."},
    "shared": True,
    "tenant": "",
    "created": "2026-01-01T00:00:00.000000000Z",
    "changed": "2026-01-01T00:00:00.000000000Z",
}
_TEXT = {"type": "string"}
_CONDITIONS = {
    "type": "object",
    "additionalProperties": {"type": "string"},
    "description": "Parameters of `/v1/trails`, without `cursor` and `limit`.",
}
_ABOUT_SHARED = "Seen by those who may see `tenant`; where that is empty, by those whose scope names no tenants."


def _object(properties: Mapping[str, Any], example: Any, *, optional: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict(properties),
        "required": [name for name in properties if name not in optional],
        "example": example,
    }


_SENT = {
    "name": {**_TEXT, "minLength": 1, "maxLength": MAX_NAME, "description": "One line, unique among your own."},
    "conditions": _CONDITIONS,
    "shared": {"type": "boolean", "default": False, "description": _ABOUT_SHARED},
    "tenant": {**_TEXT, "default": "", "maxLength": 200},
}
_TOLD = {"id", "principal", "own", "created", "changed"}
SEARCH_SCHEMAS: Mapping[str, dict[str, Any]] = {
    "SearchTold": _object(
        _SENT, {name: one for name, one in _EXAMPLE.items() if name not in _TOLD}, optional=("shared", "tenant")
    ),
    "SavedSearch": _object(
        {
            "id": _TEXT,
            "name": _TEXT,
            "principal": {**_TEXT, "description": "Whose it is."},
            "own": {"type": "boolean", "description": "Whether it is yours."},
            "conditions": _CONDITIONS,
            "shared": {"type": "boolean", "description": _ABOUT_SHARED},
            "tenant": _TEXT,
            "created": _TEXT,
            "changed": _TEXT,
        },
        _EXAMPLE,
    ),
    "SavedSearches": _object(
        {"searches": {"type": "array", "items": {"$ref": "#/components/schemas/SavedSearch"}}},
        {"searches": [_EXAMPLE]},
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SavedSearches:
    """Searches on a shelf.

    Attributes:
        shelf: where they are; used in the thread that reads.
        parameters: those of a search for trails.
        settings: limits.
    """

    shelf: SearchShelf
    parameters: tuple[Parameter, ...]
    settings: ApiSettings

    def operations(self) -> list[Operation]:
        """All of them."""
        common: dict[str, Any] = {
            "tag": "searches",
            "roles": frozenset({"auditor", "sre", "admin"}),
            "scoped": True,
        }
        named: dict[str, Any] = {
            **common,
            "path": f"{_PATH}/{{search}}",
            "target": _search_target,
            "path_parameters": {
                "search": ("The search's id.", {"type": "string", "pattern": "^[0-9a-f]{32}$"}, _EXAMPLE["id"])
            },
            "answers": {_JSON: ("SavedSearch", None)},
        }
        taken: dict[str, Any] = {"body_limit_bytes": 16_384, "body_types": {_JSON: ("SearchTold", None)}}
        return [
            Operation(
                operation_id="listSearches",
                path=_PATH,
                summary="Your saved searches, and those that are shared with you",
                about="By name. `conditions` are parameters for `/v1/trails`; what they find there, your scope decides.",
                action="searches.list",
                read=self.list,
                answers={_JSON: ("SavedSearches", None)},
                **common,
            ),
            Operation(
                operation_id="saveSearch",
                path=_PATH,
                method="POST",
                success=201,
                summary="Keep a search under a name",
                about=(
                    f"`Location` is its path. {_ABOUT_SHARED} To share with a tenant, it must be one that you may see. "
                    f"A principal keeps at most {self.settings.saved_searches}."
                ),
                action="search.save",
                read=self.save,
                answers={_JSON: ("SavedSearch", None)},
                problems=("name-taken", "too-many-kept"),
                **common,
                **taken,
            ),
            Operation(
                operation_id="readSearch",
                summary="Read a saved search",
                about="Yours, or one that is shared with you; its `ETag` is for changing it.",
                action="search.read",
                read=self.read,
                problems=("not-found",),
                **named,
            ),
            Operation(
                operation_id="changeSearch",
                method="PUT",
                summary="Change a saved search",
                about="Yours alone. With `If-Match` (RFC 9110 section 13.1.1) only if it is still the one that was read.",
                action="search.change",
                read=self.change,
                conditional=True,
                problems=("not-found", "name-taken", "precondition-failed"),
                **named,
                **taken,
            ),
            Operation(
                operation_id="deleteSearch",
                method="DELETE",
                summary="Delete a saved search",
                about="Yours, or as an admin one that is shared with you. `If-Match` as for changing it. What it was is told.",
                action="search.delete",
                read=self.delete,
                conditional=True,
                problems=("not-found", "precondition-failed"),
                **named,
            ),
        ]

    async def list(self, call: Call, run: Runner) -> Reading:
        """Those that the principal sees."""
        found = await run(self.seen_by, call)
        return Reading(body=_encode({"searches": [_json(one, call) for one in found]}))

    async def read(self, call: Call, run: Runner) -> Reading:
        """One of them."""
        return Reading(body=_encode(_json(await run(self.one, call), call)))

    async def save(self, call: Call, run: Runner) -> Reading:
        """A new one, durable before it is told."""
        kept = await run(self.keep, call, _told(call.body))
        return Reading(
            body=_encode(_json(kept, call)), headers={"Location": f"{_PATH}/{kept.id}", "ETag": _tag(kept, call)}
        )

    async def change(self, call: Call, run: Runner) -> Reading:
        """The same one with something else in it."""
        return await run(self._change, call, _told(call.body))  # type: ignore[no-any-return]  # what `run` gives is Any

    async def delete(self, call: Call, run: Runner) -> Reading:
        """It is gone; what it was is told."""
        return Reading(body=_encode(_json(await run(self.discard, call), call)))

    # In the thread that reads -----------------------------------------------------------------------------------------

    def seen_by(self, call: Call) -> Sequence[SavedSearch]:
        """The principal's own, and those that are shared with them, by name."""
        return [one for one in self.shelf if _sees(call, one)]

    def one(self, call: Call) -> SavedSearch:
        """The search that the path names; the same problem when there is none and when it is not seen."""
        found = self.shelf.find(call.target["search"])
        if found is None or not _sees(call, found):
            raise Problem("not-found", "there is no such search, or it is not shared with you")
        return found

    def keep(self, call: Call, told: SearchTold) -> SavedSearch:
        """Keep a new one; raises `Problem` for what cannot be kept."""
        given, name = self._checked(call, told), _name(call)
        if self.shelf.named(name, told.name) is not None:
            raise Problem("name-taken", "you have a search of this name")
        if self.shelf.count(name) >= self.settings.saved_searches:
            raise Problem("too-many-kept", f"you keep {self.settings.saved_searches} searches: delete one")
        return self.shelf.add(principal=name, **given)

    def _change(self, call: Call, told: SearchTold) -> Reading:
        before = self._owned(call)
        given = self._checked(call, told)
        other = self.shelf.named(before.principal, told.name)
        if other is not None and other.id != before.id:
            raise Problem("name-taken", "you have another search of this name")
        changed = self.shelf.change(before, **given)
        return Reading(body=_encode(_json(changed, call)), headers={"ETag": _tag(changed, call)})

    def discard(self, call: Call) -> SavedSearch:
        """Delete the one that the path names; raises `Problem`."""
        found = self._owned(call, deletes=True)
        self.shelf.remove(found)
        return found

    def _owned(self, call: Call, *, deletes: bool = False) -> SavedSearch:
        """The search that the path names, if the principal may change it and it is still what they read."""
        found = self.one(call)
        if found.principal != _name(call) and not (deletes and call.has_role("admin")):
            raise Problem("forbidden", "it is somebody else's; keep one of your own", roles=[])
        asked = call.request.headers.getlist("if-match")
        if asked and not _matches(asked, _tag(found, call)):
            raise Problem("precondition-failed", "it is not the one that If-Match names: read it again")
        return found

    def _checked(self, call: Call, told: SearchTold) -> dict[str, Any]:
        """What to keep, once a search with these conditions would be answered; raises `Problem`."""
        if told.name != told.name.strip() or not 0 < len(told.name) <= MAX_NAME or not told.name.isprintable():
            raise Problem("bad-body", f"`name` is one line of 1 to {MAX_NAME} characters")
        if any(map(self.shelf.has_card, (told.name, told.tenant, *told.conditions.values()))):
            raise Problem("bad-body", "it holds a card number, which is kept nowhere in the clear")
        known = tuple(one for one in self.parameters if one.name not in _PAGING)
        try:
            parse_query(urlencode(told.conditions).encode("ascii"), known)
        except Problem as problem:
            where = problem.extra.get("parameter", "conditions")
            raise Problem("bad-body", f"`conditions`: {where}: {problem.detail}") from problem
        except UnicodeEncodeError as error:
            raise Problem("bad-body", "`conditions` are not Unicode text") from error
        if told.tenant and not told.shared:
            raise Problem("bad-body", "`tenant` says with whom it is shared, and it is not")
        if told.shared and not _may_share(call.scope, told.tenant):
            raise Problem("bad-body", "`tenant` is none that you may see")
        return {"name": told.name, "conditions": told.conditions, "shared": told.shared, "tenant": told.tenant}


def _may_share(scope: RowScope, tenant: str) -> bool:
    return scope.tenants is None or tenant in scope.tenants


def _sees(call: Call, search: SavedSearch) -> bool:
    return search.principal == _name(call) or (search.shared and _may_share(call.scope, search.tenant))


def _name(call: Call) -> str:
    assert call.principal is not None
    return call.principal.name


def _json(search: SavedSearch, call: Call) -> dict[str, Any]:
    return {
        "id": search.id,
        "name": search.name,
        "principal": search.principal,
        "own": search.principal == _name(call),
        "conditions": search.conditions,
        "shared": search.shared,
        "tenant": search.tenant,
        "created": format_time(search.created_ns),
        "changed": format_time(search.changed_ns),
    }


def _tag(search: SavedSearch, call: Call) -> str:
    """The entity tag that reading it gives whoever calls."""
    return entity_tag(_encode(_json(search, call)), _JSON)


def _matches(fields: Sequence[str], tag: str) -> bool:
    """Whether If-Match names this tag; ``*`` is any. Compared strongly (RFC 9110 section 13.1.1): a weak tag is none of ours."""
    return any(one.strip() in ("*", tag) for field in fields for one in field.split(","))


def _told(body: bytes) -> SearchTold:
    try:
        return msgspec.json.decode(body, type=SearchTold)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise Problem("bad-body", str(error)) from error


def _search_target(request: Request) -> Mapping[str, Any]:
    text = unquote_to_bytes(str(request.path_params.get("search", ""))).decode("utf-8", "replace")
    return {"search": text}
