"""A stand-in for the paths of Grafana's HTTP API that we use, written from its public documentation; no Grafana was at hand.

https://grafana.com/docs/grafana/latest/developers/http_api/: folder, folder_permissions, data_source, dashboard, folder_dashboard_search,
team. It keeps what it is given, counts versions, hides secrets, and refuses what the documentation says is refused. What is tested against
it is that the real client asks as the documentation says, and that a second `apply` has nothing to do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Answer = tuple[int, Any]
_SOURCES_OWN = {
    "typeLogoUrl": "",
    "user": "",
    "database": "",
    "withCredentials": False,
    "isDefault": False,
    "readOnly": False,
}


class GrafanaApi:
    """What it keeps, and what it was asked.

    Attributes:
        url: its base.
        token: what a request must bear.
        role: of that token; anything but Admin is refused what changes permissions and data sources.
        calls: method and path of each request, in order.
        prefix: path below which it is served, as behind a proxy.
    """

    def __init__(self, token: str, prefix: str = "") -> None:
        self.url = ""
        self.token = token
        self.prefix = prefix
        self.role = "Admin"
        self.calls: list[tuple[str, str]] = []
        self.folders: dict[str, dict[str, Any]] = {}
        self.permissions: dict[str, list[dict[str, Any]]] = {}
        self.sources: dict[str, dict[str, Any]] = {}
        self.secrets: dict[str, dict[str, str]] = {}
        self.boards: dict[str, dict[str, Any]] = {}
        self.teams = [{"id": 7, "name": "payments"}, {"id": 8, "name": "payments-guests"}]

    def writes(self) -> list[tuple[str, str]]:
        """Requests that change something."""
        return [call for call in self.calls if call[0] != "GET"]

    def answer(self, method: str, target: str, headers: Any, body: Any) -> Answer:
        """What is answered to a request."""
        parts = urlsplit(target)
        self.calls.append((method, parts.path))
        if headers.get("authorization") != f"Bearer {self.token}":
            return 401, {"message": "Invalid API key"}
        if self.role != "Admin" and method != "GET":
            return 403, {"message": "You'll need additional permissions to perform this action"}
        routes: list[tuple[str, str, Callable[..., Answer]]] = [
            ("GET", r"/api/folders/([^/]+)", self._folder),
            ("POST", r"/api/folders", lambda: self._new_folder(body)),
            ("PUT", r"/api/folders/([^/]+)", lambda uid: self._change_folder(uid, body)),
            ("GET", r"/api/folders/([^/]+)/permissions", self._folder_permissions),
            ("POST", r"/api/folders/([^/]+)/permissions", lambda uid: self._permit(uid, body)),
            ("GET", r"/api/datasources/uid/([^/]+)", self._source),
            ("POST", r"/api/datasources", lambda: self._put_source(body["uid"], body, new=True)),
            ("PUT", r"/api/datasources/uid/([^/]+)", lambda uid: self._put_source(uid, body, new=False)),
            ("GET", r"/api/dashboards/uid/([^/]+)", self._board),
            ("POST", r"/api/dashboards/db", lambda: self._put_board(body)),
            ("GET", r"/api/search/?", lambda: self._search(parse_qs(parts.query))),
            ("GET", r"/api/teams/search", lambda: self._teams(parse_qs(parts.query))),
        ]
        for verb, path, handle in routes:
            found = re.fullmatch(re.escape(self.prefix) + path, parts.path)
            if verb == method and found:
                return handle(*found.groups())
        return 404, {"message": "Not found"}

    # folders ------------------------------------------------------------------------------------------------------------

    def _folder(self, uid: str) -> Answer:
        return (200, self.folders[uid]) if uid in self.folders else (404, {"message": "folder not found"})

    def _new_folder(self, body: dict[str, Any]) -> Answer:
        if body["uid"] in self.folders:
            return 409, {"message": "a folder with the same uid already exists"}
        self.folders[body["uid"]] = {"id": len(self.folders) + 1, "version": 1, **body}
        # documented: whoever makes a folder, and the role Viewer and Editor, have rights there at first
        self.permissions[body["uid"]] = [{"role": "Viewer", "permission": 1}, {"role": "Editor", "permission": 2}]
        return 200, self.folders[body["uid"]]

    def _change_folder(self, uid: str, body: dict[str, Any]) -> Answer:
        if not body.get("overwrite") and body.get("version") != self.folders[uid]["version"]:
            return 412, {"message": "the folder has been changed by someone else"}
        self.folders[uid] |= {"title": body["title"], "version": self.folders[uid]["version"] + 1}
        return 200, self.folders[uid]

    def _folder_permissions(self, uid: str) -> Answer:
        if uid not in self.folders:
            return 404, {"message": "folder not found"}
        names = {1: "View", 2: "Edit", 4: "Admin"}
        blank = {"role": "", "teamId": 0, "userId": 0, "inherited": False, "uid": uid}
        return 200, [{**blank, **one, "permissionName": names[one["permission"]]} for one in self.permissions[uid]]

    def _permit(self, uid: str, body: dict[str, Any]) -> Answer:
        for one in body["items"]:
            if one["permission"] not in (1, 2, 4) or sum(key in one for key in ("role", "teamId", "userId")) != 1:
                return 400, {"message": "bad permission"}
        self.permissions[uid] = body["items"]
        return 200, {"message": "Folder permissions updated"}

    # data sources ---------------------------------------------------------------------------------------------------------

    def _source(self, uid: str) -> Answer:
        if uid not in self.sources:
            return 404, {"message": "Data source not found"}
        fields = dict.fromkeys(self.secrets.get(uid, {}), True)
        return 200, {**_SOURCES_OWN, "basicAuth": False, **self.sources[uid], "secureJsonFields": fields}

    def _put_source(self, uid: str, body: dict[str, Any], *, new: bool) -> Answer:
        if new == (uid in self.sources):
            return (409 if new else 404), {
                "message": "data source with the same name already exists" if new else "not found"
            }
        if {"name", "type", "access"} - body.keys():
            return 400, {"message": "bad request data"}
        kept = dict(body)
        self.secrets[uid] = {**self.secrets.get(uid, {}), **kept.pop("secureJsonData", {})}
        self.sources[uid] = {"id": len(self.sources) + 1, "orgId": 1, **kept}
        return 200, {"id": self.sources[uid]["id"], "message": "Datasource added", "name": body["name"]}

    # boards ------------------------------------------------------------------------------------------------------------

    def _board(self, uid: str) -> Answer:
        return (200, self.boards[uid]) if uid in self.boards else (404, {"message": "Dashboard not found"})

    def _put_board(self, body: dict[str, Any]) -> Answer:
        board = json.loads(json.dumps(body["dashboard"]))
        if body.get("folderUid") and body["folderUid"] not in self.folders:
            return 400, {"message": "folder not found"}
        if not board.get("title"):
            return 400, {"message": "Dashboard title cannot be empty"}
        there = self.boards.get(board["uid"])
        if there and not body.get("overwrite") and board.get("version") != there["dashboard"]["version"]:
            return 412, {"status": "version-mismatch", "message": "The dashboard has been changed by someone else"}
        version = there["dashboard"]["version"] + 1 if there else 1
        board |= {"id": there["dashboard"]["id"] if there else len(self.boards) + 1, "version": version}
        self.boards[board["uid"]] = {
            "dashboard": board,
            "meta": {"folderUid": body.get("folderUid", ""), "version": version},
        }
        return 200, {"id": board["id"], "uid": board["uid"], "status": "success", "version": version}

    def _search(self, query: dict[str, list[str]]) -> Answer:
        tags = query.get("tag", [])
        return 200, [
            {"uid": uid, "title": one["dashboard"]["title"], "type": "dash-db", "folderUid": one["meta"]["folderUid"]}
            for uid, one in self.boards.items()
            if set(tags) <= set(one["dashboard"].get("tags", ()))
        ]

    def _teams(self, query: dict[str, list[str]]) -> Answer:
        found = self.teams if query.get("page", ["1"]) == ["1"] else []
        return 200, {"totalCount": len(self.teams), "teams": found, "page": 1, "perPage": 1000}


@contextmanager
def grafana_api(token: str, prefix: str = "") -> Iterator[GrafanaApi]:
    """It, on a port of this machine."""
    api = GrafanaApi(token, prefix)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            status, answer = api.answer(self.command, self.path, self.headers, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
            """Say nothing."""

    for method in ("GET", "POST", "PUT", "DELETE"):
        setattr(Handler, f"do_{method}", Handler.handle_one)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True  # a client may keep its connection
    api.url = f"http://127.0.0.1:{server.server_port}{prefix}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield api
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
