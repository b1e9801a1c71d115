"""What a sidecar that runs says of itself: whether events are taken and shipped, and if not, why. Asked for by `tally status`."""

import http.client
import ssl
import urllib.error
import urllib.request

import msgspec

__all__ = ["SidecarState", "ask_sidecar"]

_PATIENCE_SECONDS = 2.0
_MAX_ANSWER_BYTES = 1024 * 1024


class SidecarState(msgspec.Struct, frozen=True, kw_only=True):
    """A part of the answer of ``/readyz``.

    Attributes:
        waiting_events: durable events that the store does not have yet.
        waiting_seconds: for how long, at most, the oldest of them has been waiting.
        store_trouble: why shipping waits; empty when it does not.
        refusing: why no events are taken; empty when they are.
        config_refused: why the configuration was refused when it was last read again; empty when it was not.
    """

    waiting_events: int = 0
    waiting_seconds: float = 0.0
    store_trouble: str = ""
    refusing: str = ""
    config_refused: str = ""


def ask_sidecar(address: str) -> SidecarState | None:
    """Ask the sidecar whose HTTP server is at this URL; None when it does not answer.

    Nothing secret is sent, and who answers is known from its process id: so a certificate for another name is none the worse.
    """
    handlers: list[urllib.request.BaseHandler] = [urllib.request.ProxyHandler({})]  # it is on this machine
    if address.startswith("https:"):
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        handlers.append(urllib.request.HTTPSHandler(context=context))
    try:
        with urllib.request.build_opener(*handlers).open(f"{address}/readyz", timeout=_PATIENCE_SECONDS) as answer:
            data = answer.read(_MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:  # 503: it is not ready, and says the same
        with error:
            data = error.read(_MAX_ANSWER_BYTES)
    except (OSError, ValueError, http.client.HTTPException):  # nobody is there, or somebody else
        return None
    try:
        return msgspec.json.decode(data, type=SidecarState)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None  # another one has the port by now
