"""The boards' part of ``tally.toml``: the table ``[dashboards]``. Every key is optional, unknown ones are refused."""

from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

__all__ = ["DashboardSettings"]


class DashboardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Boards for Grafana, which `tally render` writes and `tally dashboards apply` brings there (docs/dashboards.md).

    Attributes:
        grafana_url: where people and `tally dashboards` reach Grafana. Plain HTTP only on this machine.
        api_url: where people reach the audit API: links lead from metrics to trails there. Empty: no such links.
        token_file: file with a Grafana service account's token; its role must be Admin.
        ca_file: PEM file with the authorities that sign Grafana's certificate; empty: those of the system.
        folder: title of the folder that holds the boards.
        prometheus_url: Prometheus, as Grafana reaches it.
        opensearch_url: OpenSearch, as Grafana reaches it, where the event store is there; empty: no such data source.
        opensearch_index: the pattern of the events' indexes.
        opensearch_user: user who may read them, and nothing else; empty: none.
        opensearch_password_file: file with that user's password.
        viewers, editors: what Grafana's roles Viewer and Editor may do in the folder; administrators may do everything.
        teams: what teams of Grafana may do there, by name.
    """

    grafana_url: str = ""
    api_url: str = ""
    token_file: str = ""
    ca_file: str = ""
    folder: Annotated[str, msgspec.Meta(min_length=1, max_length=100)] = "Tallystick"
    prometheus_url: str = "http://127.0.0.1:9090"
    opensearch_url: str = ""
    opensearch_index: str = "tally-events-*"
    opensearch_user: str = ""
    opensearch_password_file: str = ""
    viewers: Literal["none", "view", "edit"] = "view"
    editors: Literal["none", "view", "edit"] = "view"
    teams: dict[str, Literal["view", "edit", "admin"]] = {}

    def __post_init__(self) -> None:
        """Refuse places that are none, or hold a credential, and names of nobody."""
        for key in ("grafana_url", "api_url", "prometheus_url", "opensearch_url"):
            url = getattr(self, key)
            parts = urlsplit(url)
            if url and (
                parts.scheme not in ("http", "https") or not parts.netloc or "@" in parts.netloc or parts.query
            ):
                raise ValueError(f"{key} is no http(s) URL without credentials and query")  # the text may be a secret
            if url.endswith("/"):
                raise ValueError(f"{key} ends without a slash")
        parts = urlsplit(self.grafana_url)
        if parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1"):
            raise ValueError("grafana_url: a token goes over TLS only, or to this machine")
        if bool(self.opensearch_user) != bool(self.opensearch_password_file):
            raise ValueError("opensearch_user and opensearch_password_file go together")
