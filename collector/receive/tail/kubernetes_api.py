"""What the Kubernetes API says of a pod; who asks never waits.

``GET /api/v1/namespaces/{namespace}/pods/{name}`` with the service account's token
(https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/pod-v1/, …/tasks/run-application/access-api-from-pod/). Answers are kept
for a while and for a bounded number of pods; who asks before there is one hears nothing, and an answer is fetched in the background.
"""

import asyncio
import http.client
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from collector.clienttls import client_tls
from collector.errors import Malformed
from collector.receive.tail.kubernetes import attributes_of_pod
from collector.receive.tail.settings import KubernetesSettings

__all__ = ["MAX_ANSWER_BYTES", "Pods"]

_log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 1024 * 1024
"""A longer answer is none."""

_MAX_PODS = 4_096
_MAX_ASKING = 256
_AT_A_TIME = 4
_TIMEOUT_SECONDS = 5.0
_FIRST_RETRY_SECONDS = 5.0


@dataclass(slots=True)
class _Known:
    """`attributes` is None while there is no answer; from `ask_at` on (monotonic seconds) it is asked again."""

    attributes: Mapping[str, Any] | None
    ask_at: float
    retry_seconds: float = _FIRST_RETRY_SECONDS
    asking: bool = False


class Pods:
    """See the module. Used in one event loop."""

    def __init__(self, settings: KubernetesSettings, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._settings = settings
        self._monotonic = monotonic
        self._known: OrderedDict[tuple[str, str], _Known] = OrderedDict()
        self._asking: set[asyncio.Task[None]] = set()
        self._at_a_time = asyncio.Semaphore(_AT_A_TIME)

    def attributes(self, namespace: str, pod: str) -> Mapping[str, Any] | None:
        """Resource attributes of the pod; empty if there is no such pod, None if it is not known yet."""
        key = namespace, pod
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = _Known(attributes=None, ask_at=0.0)
            while len(self._known) > _MAX_PODS:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        if not known.asking and self._monotonic() >= known.ask_at and len(self._asking) < _MAX_ASKING:
            known.asking = True
            task = asyncio.create_task(self._ask(namespace, pod, known))
            self._asking.add(task)
            task.add_done_callback(self._asking.discard)
        return known.attributes

    async def close(self) -> None:
        """Ask no more."""
        for task in self._asking:
            task.cancel()
        await asyncio.gather(*self._asking, return_exceptions=True)

    async def _ask(self, namespace: str, pod: str, known: _Known) -> None:
        try:
            async with self._at_a_time:
                known.attributes = await asyncio.to_thread(self._fetch, namespace, pod)
            known.ask_at = self._monotonic() + self._settings.refresh_seconds
            known.retry_seconds = _FIRST_RETRY_SECONDS
        except (OSError, http.client.HTTPException, Malformed, ValueError) as error:
            _log.warning("Kubernetes does not tell of the pod %s/%s: %s", namespace, pod, error)
            known.ask_at = self._monotonic() + known.retry_seconds
            known.retry_seconds = min(2 * known.retry_seconds, self._settings.refresh_seconds)
        finally:
            known.asking = False

    def _fetch(self, namespace: str, pod: str) -> Mapping[str, Any]:
        """Ask once. Raises OSError, HTTPException, Malformed. Redirects are not followed: the token is for this server alone."""
        settings = self._settings
        parts = urlsplit(settings.server)
        connection: http.client.HTTPConnection
        if parts.scheme == "https":
            context = client_tls(settings.ca_file)
            connection = http.client.HTTPSConnection(parts.netloc, timeout=_TIMEOUT_SECONDS, context=context)
        else:
            connection = http.client.HTTPConnection(parts.netloc, timeout=_TIMEOUT_SECONDS)
        headers = {"Accept": "application/json"}
        if settings.token_file:  # it is changed under us every hour
            headers["Authorization"] = f"Bearer {Path(settings.token_file).read_text(encoding='utf-8').strip()}"
        try:
            path = f"/api/v1/namespaces/{quote(namespace, safe='')}/pods/{quote(pod, safe='')}"
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            body = answer.read(MAX_ANSWER_BYTES + 1)
        finally:
            connection.close()
        if answer.status == http.client.NOT_FOUND:
            return {}
        if answer.status != http.client.OK:
            raise Malformed(f"it answers {answer.status}", label="bad_pod")
        if len(body) > MAX_ANSWER_BYTES:
            raise Malformed(f"an answer of more than {MAX_ANSWER_BYTES} bytes", label="bad_pod")
        return attributes_of_pod(body, settings.labels)
