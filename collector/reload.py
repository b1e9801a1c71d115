"""Another configuration, put in force while senders send on; a bad one is refused, and nothing has changed.

Everything that can be wrong is found before anything is replaced: the file is read, rules and mappings are made, keys and certificates are
read, and what listens anew listens. Only then the new intake is put before the ways in, bounds change, and what is replaced ends.
What stays for the life of a process is in `FIXED`: a configuration that changes any of it is refused as a whole, and says which.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

import msgspec

from collector.deadletters import DeadLetters
from collector.errors import Malformed, StateUnknown, TallyError
from collector.limits import PipelineLimits
from collector.metrics import CollectorMetrics
from collector.openways import OpenWays
from collector.pipeline import Pipeline
from collector.receive import Intake
from collector.receive.listening import tls_of
from collector.settings import CollectorSettings
from collector.way import Wanted

__all__ = ["FIXED", "Asking", "Reloads", "differences", "refuse_fixed"]

_log = logging.getLogger("tally.collector")

FIXED = frozenset(
    {"name", "relay", "clock", "metrics_to", "requests.max_services", "requests.max_operations", "spool.journal_ids"}
)
"""Settings of a collector, tables included, that hold until it is started again."""


def differences(old: msgspec.Struct, new: msgspec.Struct, prefix: str = "") -> Iterator[str]:
    """The paths of the settings that differ between two values of one struct."""
    for name in old.__struct_fields__:
        one, other = getattr(old, name), getattr(new, name)
        if one == other:
            continue
        if isinstance(one, msgspec.Struct) and type(one) is type(other):
            yield from differences(one, other, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def refuse_fixed(changed: list[str], fixed: frozenset[str], *, where: str = "") -> None:
    """Raises `Malformed`, which names those of the changed settings that are fixed, or in a table that is."""
    found = [path for path in changed if path in fixed or path.partition(".")[0] in fixed]
    if found:
        names = ", ".join(f"{where}{path}" for path in found)
        raise Malformed(f"{names}: a change of this needs a restart", label="needs_restart")


@dataclass(slots=True, kw_only=True)
class Asking:
    """How a process asks for it.

    Attributes:
        read: the settings as they stand now; may raise what reading them raises, and `Malformed`: they need a restart.
        asked: set it to have them read.
    """

    read: Callable[[], CollectorSettings]
    asked: asyncio.Event = field(default_factory=asyncio.Event)


class Reloads:
    """See the module. For the event loop of one sidecar.

    Args:
        settings: those in force.
        ways: its ways in.
        wanted_of: which ways in some settings ask for.
        intake_of: what stands before the spool under some settings; raises `Malformed`, OSError.
        limits_of: the pipeline's bounds under some settings.
        pipeline, dead_letters, metrics: its own.
        ready: called with the addresses when others have come.
        clock: Unix time in nanoseconds.
    """

    def __init__(
        self,
        settings: CollectorSettings,
        *,
        ways: OpenWays,
        wanted_of: Callable[[CollectorSettings], Mapping[str, Wanted]],
        intake_of: Callable[[CollectorSettings], Intake],
        limits_of: Callable[[CollectorSettings], PipelineLimits],
        pipeline: Pipeline,
        dead_letters: DeadLetters,
        metrics: CollectorMetrics,
        ready: Callable[[Mapping[str, str]], None],
        clock: Callable[[], int],
    ) -> None:
        self.settings = settings
        self.refused = ""
        """Why the last configuration was refused; empty when it was not."""
        self._ways = ways
        self._wanted_of = wanted_of
        self._intake_of = intake_of
        self._limits_of = limits_of
        self._pipeline = pipeline
        self._dead_letters = dead_letters
        self._metrics = metrics
        self._ready = ready
        self._clock = clock
        metrics.configured(clock() / 1e9)

    async def reload(self, read: Callable[[], CollectorSettings]) -> None:
        """Read, and put in force or refuse. Raises `StateUnknown`: the process must be started again."""
        try:
            new = await asyncio.to_thread(read)
            changed = list(differences(self.settings, new))
            refuse_fixed(changed, FIXED, where="collector.")
            before = self._ways.addresses
            tls_of(new.grpc)  # gRPC ends before it is opened again: what is in its files is looked at before
            wanted, intake = self._wanted_of(new), self._intake_of(new)
            others = await self._ways.change(wanted, intake, last=lambda: self._bound(new))
        except StateUnknown:
            raise
        except (TallyError, OSError, ValueError) as error:
            self._refuse(str(error))
            return
        except Exception as error:  # noqa: BLE001 - a defect: senders must not feel it
            _log.exception("the configuration cannot be put in force")
            self._refuse(f"{type(error).__name__}: {error}")
            return
        self.settings, self.refused = new, ""
        self._metrics.configured(self._clock() / 1e9, outcome="applied")
        _log.info(
            "the configuration was read again: %s; ways in opened, changed or closed: %s",
            f"changed: {', '.join(changed)}" if changed else "no setting changed",
            ", ".join(others) or "none",
        )
        if self._ways.addresses != before:
            self._ready(self._ways.addresses)

    def _bound(self, settings: CollectorSettings) -> None:
        self._pipeline.limit(self._limits_of(settings))
        self._metrics.spool_may_hold(settings.spool.max_bytes)
        self._dead_letters.limit(settings.spool.dead_letters_max_bytes)

    def _refuse(self, reason: str) -> None:
        self.refused = reason
        self._metrics.configured(self._clock() / 1e9, outcome="refused")
        _log.error("the configuration is refused, and the one before stays in force: %s", reason)
