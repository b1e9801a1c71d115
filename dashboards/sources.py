"""The data sources that the boards need, as Grafana's API and its provisioning files take them.

https://grafana.com/docs/grafana/latest/developers/http_api/data_source/
"""

from typing import Any
from urllib.parse import quote

from dashboards.settings import DashboardSettings

__all__ = ["OPENSEARCH_UID", "PROMETHEUS_UID", "data_sources"]

PROMETHEUS_UID = "tally-prometheus"
OPENSEARCH_UID = "tally-opensearch"


def data_sources(settings: DashboardSettings) -> list[dict[str, Any]]:
    """Prometheus, whose exemplars lead to trails, and OpenSearch where the events are there. No secret is in it."""
    api = settings.api_url
    prometheus: dict[str, Any] = {
        "uid": PROMETHEUS_UID,
        "name": "Tallystick Prometheus",
        "type": "prometheus",
        "access": "proxy",
        "url": settings.prometheus_url,
        "jsonData": {"httpMethod": "POST", "prometheusType": "Prometheus"},
    }
    if api:
        trail = f"{api}/v1/trails/trace/${{__value.raw}}"
        prometheus["jsonData"]["exemplarTraceIdDestinations"] = [
            {"name": "trace_id", "url": trail, "urlDisplayLabel": "Trail"}
        ]
    found = [prometheus]
    if settings.opensearch_url:
        found.append(_opensearch(settings))
    return found


def _opensearch(settings: DashboardSettings) -> dict[str, Any]:
    """The events, by the names that Grafana's OpenSearch plugin knows (docs/operating.md, "Looking at events elsewhere")."""
    made: dict[str, Any] = {
        "uid": OPENSEARCH_UID,
        "name": "Tallystick events",
        "type": "grafana-opensearch-datasource",
        "access": "proxy",
        "url": settings.opensearch_url,
        "jsonData": {
            "database": settings.opensearch_index,
            "timeField": "@timestamp",
            "flavor": "opensearch",
            "version": "3.4.0",
            "logMessageField": "body",
            "logLevelField": "severityText",
        },
    }
    if settings.api_url:
        links = [("traceId", "trace"), ("transaction", "transaction")]
        made["jsonData"]["dataLinks"] = [
            {"field": field, "url": f"{settings.api_url}/v1/trails/{quote(kind)}/${{__value.raw}}"}
            for field, kind in links
        ]
    if settings.opensearch_user:
        made |= {"basicAuth": True, "basicAuthUser": settings.opensearch_user}
    return made
