"""Brings folder, permissions, data sources and boards to a Grafana through its HTTP API, and says what differs.

First everything is compared, then what differs is written; what is as it must be is left alone, so a second `apply` does nothing.
Nothing is deleted: boards of ours that are no longer made are named.

API: https://grafana.com/docs/grafana/latest/developers/http_api/ (folder, folder_permissions, data_source, dashboard, team).
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self
from urllib.parse import urlsplit

from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, TokenAuth

from dashboards.settings import DashboardSettings
from dashboards.sources import OPENSEARCH_UID, data_sources

__all__ = ["FOLDER_UID", "Change", "Grafana", "GrafanaTrouble"]

FOLDER_UID = "tallystick"
_LEVELS = {"view": 1, "edit": 2, "admin": 4}
_GRAFANAS_OWN = frozenset({"id", "version", "iteration"})
"""Members of a dashboard that Grafana counts itself."""

_SECONDS = 15.0


class GrafanaTrouble(Exception):
    """Grafana did not do what was asked, or could not be asked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What differs: the kind of thing, its name, what is to be done, and where it differs (paths in its JSON, cut to a few)."""

    kind: Literal["folder", "permissions", "data source", "board"]
    name: str
    action: Literal["create", "change", "left over"]
    where: Sequence[str] = ()


class Grafana:
    """One Grafana.

    Args:
        settings: where it is, and what is wanted there.
        token: a service account's token; its role must be Admin.
        boards: the dashboards that are wanted.
        opensearch_password: for the data source; empty: none.
    """

    def __init__(
        self,
        settings: DashboardSettings,
        *,
        token: str,
        boards: Sequence[Mapping[str, Any]],
        opensearch_password: str = "",
    ) -> None:
        parts = urlsplit(settings.grafana_url)
        self._api = GrafanaApi(
            auth=TokenAuth(token),
            host=parts.hostname,
            port=parts.port,
            protocol=parts.scheme,
            url_path_prefix=f"{parts.path.strip('/')}/" if parts.path.strip("/") else "",
            verify=settings.ca_file or True,
            timeout=_SECONDS,
        )
        self._settings = settings
        self._boards = boards
        self._password = opensearch_password

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._api.client.s.close()  # the client has no close of its own

    def differences(self, *, resend_secrets: bool = False) -> list[Change]:
        """What is not as it must be. Changes nothing.

        Raises:
            GrafanaTrouble: refused, or not answered.
        """
        return self._run(apply=False, resend_secrets=resend_secrets)

    def apply(self, *, resend_secrets: bool = False) -> list[Change]:
        """Make it as it must be; gives what was done. `resend_secrets`: passwords, too, which cannot be compared.

        Raises:
            GrafanaTrouble: refused, or not answered. What was written before stays; run it again.
        """
        return self._run(apply=True, resend_secrets=resend_secrets)

    def _run(self, *, apply: bool, resend_secrets: bool) -> list[Change]:
        try:
            return [
                *self._folder(apply),
                *self._permissions(apply),
                *self._sources(apply, resend_secrets),
                *self._dashboards(apply),
            ]
        except GrafanaException as error:
            code = error.status_code
            hint = {401: ": is the token right?", 403: ": the token's role must be Admin"}.get(code, "")
            raise GrafanaTrouble(f"Grafana answers {code}{hint or f': {_cut(error.message)}'}") from error
        except OSError as error:  # the client's exceptions are; they name the address, and no token
            raise GrafanaTrouble(f"Grafana at {self._settings.grafana_url} cannot be asked: {_cut(error)}") from error

    def _folder(self, apply: bool) -> Iterator[Change]:
        title = self._settings.folder
        there = _found(lambda: self._api.folder.get_folder(FOLDER_UID))
        if there is None:
            if apply:
                self._api.folder.create_folder(title, FOLDER_UID)
            yield Change(kind="folder", name=title, action="create")
        elif there["title"] != title:
            if apply:
                self._api.folder.update_folder(FOLDER_UID, title=title, overwrite=True)
            yield Change(kind="folder", name=title, action="change", where=["title"])

    def _permissions(self, apply: bool) -> Iterator[Change]:
        roles = {"Viewer": self._settings.viewers, "Editor": self._settings.editors}
        wanted = [
            *({"role": role, "permission": _LEVELS[level]} for role, level in roles.items() if level != "none"),
            *(self._team(name, level) for name, level in sorted(self._settings.teams.items())),
        ]
        there = _found(lambda: self._api.folder.get_folder_permissions(FOLDER_UID)) or []
        have = {_entry(one) for one in there if not one.get("inherited")}
        need = {_entry(one) for one in wanted}
        if have != need:
            if apply:
                self._api.folder.update_folder_permissions(FOLDER_UID, {"items": wanted})
            where = [f"{'+' if one in need else '-'} {one[0]} {one[1]}: {one[2]}" for one in sorted(have ^ need)]
            yield Change(kind="permissions", name=self._settings.folder, action="change", where=where)

    def _team(self, name: str, level: str) -> dict[str, Any]:
        # all of them: the client puts a query into its URL as it stands
        teams = [one for one in self._api.teams.search_teams() if one["name"] == name]
        if len(teams) != 1:
            raise GrafanaTrouble(f"teams: Grafana has no team {name!r}")
        return {"teamId": teams[0]["id"], "permission": _LEVELS[level]}

    def _sources(self, apply: bool, resend: bool) -> Iterator[Change]:
        for wanted in data_sources(self._settings):
            secret = self._password if wanted["uid"] == OPENSEARCH_UID else ""
            there = _found(lambda uid=wanted["uid"]: self._api.datasource.get_datasource_by_uid(uid))
            where = [] if there is None else sorted(_differing({key: there.get(key) for key in wanted}, wanted))
            if there is not None and secret and (resend or not (there.get("secureJsonFields") or {}).get("basicAuthPassword")):  # fmt: skip
                where.append("its password")
            if there is not None and not where:
                continue
            if apply:
                body = {**wanted, **({"secureJsonData": {"basicAuthPassword": secret}} if secret else {})}
                if there is None:
                    self._api.datasource.create_datasource(body)
                else:
                    self._api.datasource.update_datasource_by_uid(wanted["uid"], body)
            yield Change(
                kind="data source", name=wanted["name"], action="create" if there is None else "change", where=where
            )

    def _dashboards(self, apply: bool) -> Iterator[Change]:
        for wanted in self._boards:
            there = _found(lambda uid=wanted["uid"]: self._api.dashboard.get_dashboard(uid))
            where: list[str] = []
            if there is not None:
                have = {key: value for key, value in there["dashboard"].items() if key not in _GRAFANAS_OWN}
                where = sorted(_differing(have, dict(wanted)))
                if there.get("meta", {}).get("folderUid") != FOLDER_UID:
                    where.append("its folder")
                if not where:
                    continue
            if apply:
                self._api.dashboard.update_dashboard(
                    {
                        "dashboard": wanted,
                        "folderUid": FOLDER_UID,
                        "overwrite": True,
                        "message": "tally dashboards apply",
                    }
                )
            yield Change(
                kind="board", name=wanted["title"], action="create" if there is None else "change", where=where
            )
        ours = {wanted["uid"] for wanted in self._boards}
        for one in self._api.search.search_dashboards(tag="tallystick", type_="dash-db"):
            if one.get("folderUid") == FOLDER_UID and one["uid"] not in ours:
                yield Change(kind="board", name=one["title"], action="left over")


def _found(ask: Any) -> Any:
    """What is asked for; None where Grafana says 404."""
    try:
        return ask()
    except GrafanaClientError as error:
        if error.status_code != 404:
            raise
        return None


def _entry(one: Mapping[str, Any]) -> tuple[str, str, int]:
    """A permission as a value that compares: whose, which, and how much."""
    for key in ("role", "teamId", "userId"):
        if one.get(key):
            return key, str(one[key]), int(one["permission"])
    return "nobody", "", int(one["permission"])


def _differing(have: Any, want: Any, path: str = "") -> Iterator[str]:
    """Paths at which two JSON values differ; a list whose length differs is one path."""
    if isinstance(have, dict) and isinstance(want, dict):
        for key in have.keys() | want.keys():
            yield from _differing(have.get(key), want.get(key), f"{path}.{key}".lstrip("."))
    elif isinstance(have, list) and isinstance(want, list) and len(have) == len(want):
        for at, (one, other) in enumerate(zip(have, want, strict=True)):
            yield from _differing(one, other, f"{path}[{at}]")
    elif json.dumps(have, sort_keys=True) != json.dumps(want, sort_keys=True):
        yield path or "all of it"


def _cut(text: object) -> str:
    return str(text)[:300]
