"""What Prometheus, Alertmanager and Grafana read, made from the configuration: a text for each file."""

import json
from collections.abc import Mapping
from typing import Any

from deploy.config import Config
from deploy.session import Failure

__all__ = ["boards_of", "rendered", "without_extra"]


def without_extra(error: ModuleNotFoundError, extra: str) -> Failure:
    """What to say when a library of an extra is not installed."""
    return Failure(f"{error.name} is not installed: pip install 'tallystick[{extra}]'", exit_code=2)


def rendered(config: Config, *, alerts: bool = True, boards: bool = True) -> dict[str, str]:
    """Each file's text by its path below the output folder.

    Raises:
        Failure: an extra is not installed.
    """
    files: dict[str, str] = {}
    if alerts:
        files |= _alerting(config)
    if boards:
        files |= _grafana(config)
    return files


def _alerting(config: Config) -> dict[str, str]:
    from alerting.alert import Links
    from alerting.alertmanager import configuration
    from alerting.rules import Inventory, rules

    settings = config.alerting
    here = tuple(config.sidecars) or (config.collector.name,)
    inventory = Inventory(
        detector=bool(config.detector.rules),
        siem=bool(config.siem.destinations),
        incidents=config.incidents.enabled,
        collectors=tuple(dict.fromkeys((*here, *settings.expected_collectors))),
        writers=config.correlator.shards,
        api=settings.expect_api,
    )
    links = Links(grafana=config.dashboards.grafana_url, api=config.dashboards.api_url, runbooks=settings.runbook_url)
    return {
        "prometheus/tallystick.rules.yml": _yaml(rules(settings, inventory, links, config.ledger), "alerting"),
        "alertmanager/alertmanager.yml": _yaml(configuration(settings), "alerting"),
    }


def boards_of(config: Config) -> list[dict[str, Any]]:
    """The dashboards, as plain values."""
    try:
        from dashboards.board import Links
        from dashboards.boards import boards
    except ModuleNotFoundError as error:
        raise without_extra(error, "grafana") from error
    links = Links(api=config.dashboards.api_url, runbooks=config.alerting.runbook_url)
    return [board.build(links) for board in boards()]


def _grafana(config: Config) -> dict[str, str]:
    from dashboards.sources import data_sources

    files = {
        f"grafana/dashboards/{board['uid']}.json": json.dumps(board, indent=2, ensure_ascii=False) + "\n"
        for board in boards_of(config)
    }
    settings = config.dashboards
    sources = [dict(one) for one in data_sources(settings)]
    for one in sources:
        if one.get("basicAuth"):  # Grafana reads the variable; the password is in no file of ours
            one["secureJsonData"] = {"basicAuthPassword": "$TALLY_OPENSEARCH_PASSWORD"}
    provider = {
        "name": "tallystick",
        "folder": settings.folder,
        "folderUid": "tallystick",
        "type": "file",
        "allowUiUpdates": False,
        "options": {"path": "/var/lib/grafana/dashboards/tallystick"},
    }
    files["grafana/provisioning/datasources/tallystick.yml"] = _yaml(
        {"apiVersion": 1, "datasources": sources}, "grafana"
    )
    files["grafana/provisioning/dashboards/tallystick.yml"] = _yaml(
        {"apiVersion": 1, "providers": [provider]}, "grafana"
    )
    return files


def _yaml(value: Mapping[str, Any], extra: str) -> str:
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise without_extra(error, extra) from error

    class Dumper(yaml.SafeDumper):
        """Without anchors: a person reads it."""

        def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002 - yaml's signature
            return True

    text: str = yaml.dump(value, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=1_000_000)
    return f"# Made by `tally render`; change tally.toml and make it anew.\n{text}"
