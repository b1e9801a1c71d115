"""What is asked of what runs: does the store answer, what do the processes' metrics and the last check say, can Alertmanager tell anybody?

Each probe gives what it saw now; `alerting.incidents.condition.Patience` says what of that lasts.
"""

import http.client
import logging
import math
import ssl
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from alerting.detect.exchange import exchanges
from alerting.incidents.condition import Condition
from collector.batch import StreamId
from collector.errors import Overloaded, TallyError
from collector.store import EventStore

__all__ = ["ALERTMANAGER", "AlertmanagerProbe", "CheckProbe", "PagesProbe", "Samples", "StoreProbe", "fetch", "samples"]

_log = logging.getLogger("tally.incidents")

ALERTMANAGER = "alertmanager"
"""The subject of an incident: none of them can be reached."""

_TIMEOUT_SECONDS = 3.0
"""For a whole page: whoever sends one byte by byte must not keep us from seeing that a control fails."""
_MAX_BYTES = 16 * 2**20
_NOBODY = StreamId("nobody/0000000000000000")
"""A stream that no store has: being told so is an answer."""

_CLOCK_OFFSET = "tally_collector_clock_offset_seconds"
_REFUSED = "tally_collector_refused_total"

_FAILURE_STANDS_NS = 600_000_000_000
"""Alertmanager counts a failure once for each try of a group, at most every `group_interval` (five minutes): between two it has not got better."""

Samples = Mapping[str, float]
"""A page of metrics: each sample's name to the sum over its labels."""


def samples(text: str) -> Samples:
    """The samples of a page, in Prometheus' text format. Raises `ValueError` for what is none."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for one in family.samples:
            found[one.name] = found.get(one.name, 0.0) + one.value
    return found


def fetch(url: str) -> str:
    """A page of http(s), which stands in the configuration or was announced on this machine.

    Raises:
        OSError: it cannot be reached, is no success, is not HTTP, breaks off, or is no text.
    """
    request = urllib.request.Request(url, headers={"user-agent": "tally"})  # noqa: S310 - http(s), as the settings demand
    opener = urllib.request.build_opener(*exchanges(ssl.create_default_context()))
    try:
        with opener.open(request, timeout=_TIMEOUT_SECONDS) as answer:
            data = answer.read(_MAX_BYTES)
            if answer.length and len(data) < _MAX_BYTES:  # half a page says 0 of what stands in the other half
                raise http.client.IncompleteRead(data, answer.length)
        return str(data, "utf-8")
    except http.client.HTTPException as error:  # its text may be all that was answered
        raise OSError(f"{url} does not speak HTTP, or broke off ({type(error).__name__})") from error
    except UnicodeDecodeError as error:
        raise OSError(f"{url} is no text") from error


class StoreProbe:
    """Does the event store answer? Any answer is one."""

    def __init__(self, store: EventStore) -> None:
        self._store = store

    def look(self, now_ns: int) -> Iterator[Condition]:
        """What it says now."""
        try:
            self._store.acknowledged(_NOBODY)
        except Overloaded as error:
            yield Condition(cause="store_outage", fails=True, time_ns=now_ns, detail=f"it does not answer: {error}")
        except TallyError as error:
            yield Condition(cause="store_outage", fails=True, time_ns=now_ns, detail=str(error))
        else:
            yield Condition(cause="store_outage", fails=False, time_ns=now_ns, detail="it answers")


class PagesProbe:
    """What the collectors of this machine say on ``/metrics``: how far the clock is off, how much was refused.

    Args:
        pages: URL of each collector's page, by its name, of those that run now.
        fetch: gets a page.
        clock_seconds: so far off a clock may be.
        quiet_seconds: dead letters are over when there were none for so long.
    """

    def __init__(
        self,
        pages: Callable[[], Mapping[str, str]],
        *,
        fetch: Callable[[str], str] = fetch,
        clock_seconds: float,
        quiet_seconds: float,
    ) -> None:
        self._pages = pages
        self._fetch = fetch
        self._clock_seconds = clock_seconds
        self._quiet_ns = int(quiet_seconds * 1e9)
        self._first = True
        self._refused: dict[str, tuple[float, int]] = {}  # by collector: so many, and when there were more than before

    def clocks(self, now_ns: int) -> Iterator[Condition]:
        """How the clocks are now."""
        for name, said in self._said():
            offset = said.get(_CLOCK_OFFSET)
            if offset is None or math.isnan(offset):  # nobody knows
                continue
            yield Condition(
                cause="clock_off",
                subject=name,
                fails=abs(offset) > self._clock_seconds,
                time_ns=now_ns,
                detail=f"the clock is off by {offset:.3f} s",
            )

    def refusals(self, now_ns: int) -> Iterator[Condition]:
        """Whether inputs were refused since the last look, or none for long enough. That is an event: no patience goes with it.

        What was refused before the first look is not told: it may have been told before we were started.
        """
        for name, said in self._said():
            count = said.get(_REFUSED, 0.0)
            before, since_ns = self._refused.get(name, (count if self._first else 0.0, now_ns))
            if count < before:
                before = 0.0  # the process was started again
            if count > before:
                self._refused[name] = (count, now_ns)
                more = f"refused since the last look: {count - before:g}"
                yield Condition(cause="dead_letters", subject=name, fails=True, time_ns=now_ns, detail=more)
                continue
            self._refused[name] = (count, since_ns)
            if now_ns - since_ns >= self._quiet_ns:
                none = "no input was refused any more"
                yield Condition(cause="dead_letters", subject=name, fails=False, time_ns=since_ns, detail=none)
        self._first = False

    def _said(self) -> Iterator[tuple[str, Samples]]:
        for name, url in self._pages().items():
            try:
                yield name, samples(self._fetch(url))
            except (OSError, ValueError) as error:  # that it is lost is read off the log
                _log.warning("a page of metrics cannot be read", extra={"url": url, "reason": str(error)})


class CheckProbe:
    """What the last `tally check --textfile` found."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def look(self, now_ns: int) -> Iterator[Condition]:
        """What it says now; nothing where there was no check yet."""
        try:
            findings = samples(self._file.read_text("utf-8")).get("tally_check_findings")
        except (OSError, ValueError) as error:
            _log.warning("the check's file cannot be read", extra={"file": str(self._file), "reason": str(error)})
            return
        if findings is not None:
            yield Condition(
                cause="verification_failed",
                subject="check",
                fails=findings > 0,
                time_ns=now_ns,
                detail=f"the last check of the ledger has {findings:g} findings",
            )


class AlertmanagerProbe:
    """Can an Alertmanager be reached, and did what it had to tell get through? One of a cluster is enough to be reached.

    Args:
        urls: of the Alertmanagers.
        fetch: gets a page.
    """

    def __init__(self, urls: Sequence[str], *, fetch: Callable[[str], str] = fetch) -> None:
        self._urls = [url.rstrip("/") for url in urls]
        self._fetch = fetch
        self._failed: dict[str, float] = {}
        self._worse_ns: dict[str, int] = {}

    def look(self, now_ns: int) -> Iterator[Condition]:
        """How it is now: whether one answers, and whether each got its notifications out."""
        reached = 0
        for url in self._urls:
            try:
                self._fetch(f"{url}/-/ready")
                said = samples(self._fetch(f"{url}/metrics"))
            except (OSError, ValueError) as error:
                _log.warning("an Alertmanager cannot be reached", extra={"url": url, "reason": str(error)})
                continue
            reached += 1
            failed = said.get("alertmanager_notifications_failed_total", 0.0)
            more = failed - self._failed.get(url, failed)
            self._failed[url] = failed
            if more > 0:
                self._worse_ns[url] = now_ns
            fails = now_ns - self._worse_ns.get(url, -_FAILURE_STANDS_NS) < _FAILURE_STANDS_NS
            yield Condition(
                cause="alert_path_broken",
                subject=url,
                fails=fails,
                time_ns=now_ns,
                detail="notifications failed" if fails else "no notification failed",
            )
        told = f"{reached} of {len(self._urls)} Alertmanagers can be reached"
        yield Condition(cause="alert_path_broken", subject=ALERTMANAGER, fails=not reached, time_ns=now_ns, detail=told)
