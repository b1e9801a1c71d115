"""Are the processes of this data folder well: do they answer, are they ready, and are they of this version?"""

import http.client
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

from deploy.examining import Chart
from deploy.processes import Running, own_version

__all__ = ["examine_processes"]

_PATIENCE_SECONDS = 5.0
_MAX_BYTES = 65_536


class _Health(msgspec.Struct):
    reasons: list[str] = []


def examine_processes(processes: Sequence[Running], *, release: str | None = None) -> Chart:
    """Ask each process that announced itself whether it is ready. `release`: the version they should be of; None: this program's."""
    chart = Chart("processes")
    if not processes:
        chart.ok("none", "nothing runs here")
    expected = own_version() if release is None else release
    for process in processes:
        _version(chart, process, expected)
        address = process.addresses.get("http", "")
        if not address:
            chart.ok(process.name, f"runs as process {process.pid}; it has no address to be asked at")
            continue
        try:
            status, said = _ask(address)
        except (OSError, http.client.HTTPException, ValueError) as error:
            chart.fail(
                process.name,
                f"process {process.pid} does not answer at {address}: {error}",
                f"does it hang? its log, then: kill {process.pid}    # whatever keeps it running starts it again",
            )
            continue
        if status == 200:
            chart.ok(process.name, f"ready ({said})")
        else:
            chart.fail(process.name, f"not ready: {said}", "its log (stderr, or run/*.log) says more")
    return chart


def _version(chart: Chart, process: Running, expected: str) -> None:
    if process.version and expected and process.version != expected:
        chart.warn(
            process.name,
            f"runs version {process.version}, and this is {expected}: it was not started again after an upgrade",
            f"kill {process.pid}    # whatever keeps it running starts it again; or stop and start `tally up`",
        )


def _ask(address: str) -> tuple[int, str]:
    """Status and words of ``/readyz``."""
    parts = urlsplit(address)
    host, port = _reachable(parts.hostname or ""), parts.port
    if parts.scheme == "https":
        # whether its certificate is good is looked at in its file; here it is a process that we have the id of
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            host, port, timeout=_PATIENCE_SECONDS, context=context
        )
    else:
        connection = http.client.HTTPConnection(host, port, timeout=_PATIENCE_SECONDS)
    try:
        connection.request("GET", "/readyz")
        answer = connection.getresponse()
        return answer.status, _words(answer.read(_MAX_BYTES))
    finally:
        connection.close()


def _reachable(host: str) -> str:
    """An address for one that stands for all of this machine's."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - to recognise it


def _words(body: bytes) -> str:
    try:
        return "; ".join(msgspec.json.decode(body, type=_Health).reasons) or "ok"
    except (msgspec.DecodeError, UnicodeDecodeError):
        return body.decode("utf-8", "replace").strip()[:500]
