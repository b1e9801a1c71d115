"""Can the detector tell whom it must: the Alertmanagers, and who is asked to freeze a payment?"""

import http.client
from pathlib import Path
from urllib.parse import urlsplit

from alerting.detect.settings import DetectorSettings
from collector.clienttls import client_tls
from deploy.examining import Chart
from deploy.examining.certificates import shown_by, unusable_file

__all__ = ["examine_alerts"]

_PATIENCE_SECONDS = 5.0


def examine_alerts(settings: DetectorSettings) -> Chart:
    """Ask each Alertmanager whether it is ready, and see whether the one who freezes can be reached; to that one nothing is sent."""
    chart = Chart("detector")
    for url in settings.alertmanager.urls:
        _alertmanager(chart, url, settings)
    if settings.freeze.url:
        _freeze(chart, settings)
    if not chart.checks:
        chart.warn(
            "alerts", "findings go on record, and nobody is told", '[detector.alertmanager] urls = ["http://…:9093"]'
        )
    return chart


def _alertmanager(chart: Chart, url: str, settings: DetectorSettings) -> None:
    told = settings.alertmanager
    try:
        token = Path(told.token_file).read_text(encoding="utf-8").strip() if told.token_file else ""
        status = _ask(f"{url.rstrip('/')}/-/ready", ca_file=told.ca_file, token=token)
    except (OSError, ValueError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and (file := unusable_file(error)):
            chart.fail(url, f"not asked: {file}", "[detector.alertmanager] ca_file, token_file")
            return
        chart.fail(url, f"it does not answer: {error}", "[detector.alertmanager] urls, ca_file, token_file")
        return
    if status in (401, 403):
        chart.fail(url, f"it does not let us in ({status})", "[detector.alertmanager] token_file")
    elif status != 200:
        chart.fail(url, f"it is not ready, or no Alertmanager ({status} at /-/ready)", "[detector.alertmanager] urls")
    else:
        chart.ok(url, "ready")


def _freeze(chart: Chart, settings: DetectorSettings) -> None:
    freeze, parts = settings.freeze, urlsplit(settings.freeze.url)
    where = f"{parts.scheme}://{parts.netloc}"
    try:
        if parts.scheme == "https":
            shown = shown_by(freeze.url, ca_file=freeze.ca_file, timeout_seconds=_PATIENCE_SECONDS)
            if shown.why_not:
                chart.fail(where, f"its certificate is not trusted: {shown.why_not}", "[detector.freeze] ca_file")
                return
        else:
            connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_PATIENCE_SECONDS)
            connection.connect()
            connection.close()
    except OSError as error:
        if file := unusable_file(error):
            chart.fail(where, f"not asked: {file}", "[detector.freeze] ca_file")
        else:
            chart.fail(where, f"who freezes payments cannot be reached: {error}", "[detector.freeze] url")
    else:
        chart.ok(where, "who freezes payments can be reached; nothing was sent")


def _ask(url: str, *, ca_file: str, token: str) -> int:
    """The status of a GET."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = client_tls(ca_file)
        connection = http.client.HTTPSConnection(host, port, timeout=_PATIENCE_SECONDS, context=context)
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", parts.path, headers={"Authorization": f"Bearer {token}"} if token else {})
        return connection.getresponse().status
    finally:
        connection.close()
