"""What a secured test server is started with: certificates of our own authority, users with passwords, roles."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.servers.certificates import Authority
from tests.servers.opensearch_home import SECURITY


class Security:
    """The security plugin's configuration, with an administrator and whoever else is named.

    Args:
        folder: where certificates are made; emptied by nobody but the caller.
        users: user to the roles that he has.
        roles: the roles' definitions: a ``roles.yml`` of the plugin, taken as it is.
    """

    def __init__(self, folder: Path, *, users: Mapping[str, list[str]], roles: Path) -> None:
        self.authority = Authority(folder)
        # in hexadecimal: what begins with a dash is an option to the plugin's tool
        self.passwords = {name: secrets.token_hex(18) for name in ("admin", *users)}
        self.administrator = ("admin", self.passwords["admin"])
        self._users = dict(users)
        self._roles = roles
        self._files: dict[str, Any] = {}
        self._defaults = Path()
        self.authority.issue("node")
        self.authority.issue("admin")

    def prepare(self, *, java: Path, home: Path) -> None:
        """Work out the plugin's files; its own tool hashes the passwords."""
        plugin = home / "security" / SECURITY
        self._defaults = plugin / "config"
        hashes = {name: _hash(password, java, home, plugin) for name, password in self.passwords.items()}
        mappings: dict[str, Any] = {"all_access": {"reserved": True, "users": ["admin"]}}
        for user, roles in self._users.items():
            for role in roles:
                mappings.setdefault(role, {"users": []})["users"].append(user)
        users = {name: {"hash": hashed, "reserved": name == "admin"} for name, hashed in hashes.items()}
        users["admin"]["backend_roles"] = ["admin"]
        self._files = {
            "internal_users.yml": _file("internalusers", users),
            "roles_mapping.yml": _file("rolesmapping", mappings),
        }

    def lay_out(self, config: Path) -> None:
        """The plugin's files and the node's certificates into a node's configuration folder."""
        shutil.copytree(self._defaults, config / SECURITY, dirs_exist_ok=True)
        for name, content in self._files.items():
            (config / SECURITY / name).write_text(json.dumps(content), encoding="utf-8")  # JSON is YAML
        shutil.copyfile(self._roles, config / SECURITY / "roles.yml")
        for name in ("ca.pem", "node.pem", "node-key.pem"):
            shutil.copyfile(self.authority.folder / name, config / name)
        for path in config.rglob("*"):
            path.chmod(0o700 if path.is_dir() else 0o600)

    def settings(self) -> dict[str, Any]:
        """Lines of ``opensearch.yml``."""
        security = "plugins.security"
        lines: dict[str, Any] = {f"{security}.ssl.http.enabled": True}
        for layer in ("transport", "http"):
            lines[f"{security}.ssl.{layer}.pemcert_filepath"] = "node.pem"
            lines[f"{security}.ssl.{layer}.pemkey_filepath"] = "node-key.pem"
            lines[f"{security}.ssl.{layer}.pemtrustedcas_filepath"] = "ca.pem"
        return lines | {
            f"{security}.ssl.transport.enforce_hostname_verification": False,
            f"{security}.ssl.http.clientauth_mode": "OPTIONAL",
            f"{security}.allow_default_init_securityindex": True,
            f"{security}.authcz.admin_dn": [Authority.subject("admin")],
            f"{security}.nodes_dn": [Authority.subject("node")],
            f"{security}.restapi.roles_enabled": ["all_access"],
        }


def _file(kind: str, content: Mapping[str, Any]) -> dict[str, Any]:
    return {"_meta": {"type": kind, "config_version": 2}, **content}


def _hash(password: str, java: Path, home: Path, plugin: Path) -> str:
    command = [str(java / "bin" / "java"), "-cp", f"{plugin}/*:{home / 'lib'}/*"]
    command += ["org.opensearch.security.tools.Hasher", "-p", password]
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    (hashed,) = [line for line in run.stdout.splitlines() if line.startswith("$2")]
    return hashed
