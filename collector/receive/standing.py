"""How a way in stands that connects to a broker: what metrics hear, and what the log says once, not at each trial."""

import logging
from collections.abc import Callable

__all__ = ["BrokerReport", "BrokerStanding"]

_log = logging.getLogger(__name__)

BrokerReport = Callable[[str, str, int, int], object]
"""Hears: which system, the entry's label, 1 if its broker answers, else 0, and how many messages were taken since it last heard."""


class BrokerStanding:
    """Of one entry. `system`: kafka, rabbitmq or pulsar; `label`: the entry's."""

    def __init__(self, system: str, label: str, report: BrokerReport) -> None:
        self._system = system
        self._label = label
        self._report = report
        self._told = ""
        self._waits = False
        report(system, label, 0, 0)

    def connected(self) -> None:
        """The broker answers."""
        if self._told:
            _log.info("%s %s: the broker answers again", self._system, self._label)
        self._told = ""
        self._report(self._system, self._label, 1, 0)

    def taken(self, messages: int) -> None:
        """So many messages are durable."""
        if self._waits:
            _log.info("%s %s: messages are taken again", self._system, self._label)
        self._waits = False
        self._report(self._system, self._label, 1, messages)

    def waits(self, reason: str) -> None:
        """What has come cannot be taken now, and nothing more is asked for; said once until something is taken."""
        if not self._waits:
            _log.warning("%s %s: messages wait: %s", self._system, self._label, reason)
        self._waits = True

    def away(self, reason: str) -> None:
        """The broker does not answer, or not as it should; said once until it does, or for another reason."""
        if reason != self._told:
            _log.warning("%s %s: nothing is read: %s", self._system, self._label, reason)
        self._told = reason
        self._report(self._system, self._label, 0, 0)
