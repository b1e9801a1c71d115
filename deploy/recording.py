"""Puts what the command line reads on record, as the API does for what it serves (design promise 7: reading is evidence).

The command line is a recorder of its own kind: it signs with the API's recorder key and ships through a spool of its own, because a
spool belongs to one process at a time. Its stream promises no heartbeat: between two commands nobody is there to keep it.
"""

import getpass
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Protocol

from collector.errors import StateUnknown
from collector.event import Access, Event, Origin, format_time
from collector.extract import Extractor, StitchSettings
from collector.pipeline import Pipeline, PipelineLimits
from collector.prepare import Preparer
from collector.protect import Protector
from collector.recorder import Recorder
from deploy.config import Config
from deploy.keys import collector_key, token_key
from deploy.places import Places
from deploy.session import Failure, Session
from deploy.storing import open_store

__all__ = ["RECORDER", "Record", "open_recorder", "patient_recorder", "principal", "recorded"]

RECORDER = "api"
"""The recorder's name, as `correlator.recorders` lists it."""

_SPOOL = "cli"
_PATIENCE_SECONDS = 10.0
_DRAIN_SECONDS = 5.0
_LINGER_SECONDS = 0.02


class Record(Protocol):
    """Puts one access on record; durable on return."""

    def __call__(self, *, action: str, trail: str, head: int, refused: str = "") -> None:
        """See `collector.event.Access` for the arguments."""


@contextmanager
def open_recorder(
    config: Config, places: Places, *, spool: str, heartbeat_seconds: int, collector: str = RECORDER, late: bool = False
) -> Iterator[Recorder]:
    """Our recorder over a spool of its own; what it recorded is shipped at the end, or after the next start.

    Args:
        config: names the ledger.
        places: where spools, keys and the store are.
        spool: the spool's name.
        collector: the name that it signs under. Only of `correlator.recorders` accesses are believed.
        heartbeat_seconds: 0: the stream promises nothing and stays open for the next time; else it is closed at the end.
        late: a cluster is asked first when something is shipped: recording needs none.

    Raises:
        StateUnknown: the spool is another process's.
    """
    with ExitStack() as stack:
        store = open_store(config, places, late=late)
        stack.callback(store.close)
        limits = PipelineLimits()
        limits = replace(
            limits, batch=replace(limits.batch, heartbeat_seconds=heartbeat_seconds), linger_seconds=_LINGER_SECONDS
        )
        pipeline = Pipeline(
            places.spool(spool),
            collector=collector,
            ledger=config.ledger,
            store=store,
            key=collector_key(places, collector),
            limits=limits,
        )
        pipeline.start()
        stack.callback(pipeline.stop, drain_seconds=_DRAIN_SECONDS, close_stream=heartbeat_seconds > 0)
        protector = Protector(token_key=token_key(places))
        # the settings' own rules are for services: what we record ourselves states everything
        extractor = Extractor(StitchSettings(transaction=(), baggage=(), tenant=(), actor=(), outcome=()))
        yield Recorder(
            pipeline=pipeline, preparer=Preparer(extractor=extractor, protector=protector, clock=time.time_ns)
        )


@contextmanager
def recorded(session: Session) -> Iterator[Record]:
    """Give a `Record` for accesses by whoever runs this command.

    Raises:
        Failure: the recorder's spool stays in use by other commands.
    """
    who = principal()
    with ExitStack() as stack:
        recorder = stack.enter_context(patient_recorder(session.config, session.places))

        def record(*, action: str, trail: str, head: int, refused: str = "") -> None:
            recorder.record(
                Event(
                    time=format_time(time.time_ns()),
                    event_name=f"access.{action}",
                    resource={"service.name": "tally"},
                    actor=who,
                    outcome="failure" if refused else "success",
                    access=Access(principal=who, action=action, trail=trail, head=head, refused=refused),
                    origin=Origin(receiver="record"),
                )
            )

        yield record


@contextmanager
def patient_recorder(config: Config, places: Places) -> Iterator[Recorder]:
    """The command line's recorder, as soon as no other command has it.

    Raises:
        Failure: its spool stays in use by other commands.
    """
    deadline = time.monotonic() + _PATIENCE_SECONDS
    with ExitStack() as stack:
        recorder: Recorder | None = None
        while recorder is None:
            try:
                recorder = stack.enter_context(open_recorder(config, places, spool=_SPOOL, heartbeat_seconds=0))
            except StateUnknown as error:
                if "in use" not in str(error) or time.monotonic() > deadline:
                    raise Failure(f"this could not be put on record: {error}") from error
                time.sleep(0.05)  # another `tally` command records just now, which takes a moment
        yield recorder


def principal() -> str:
    """Who runs this command, as it goes on record."""
    try:
        return f"local:{getpass.getuser()}"
    except (KeyError, OSError):
        return "local:unknown"  # a container may run as a user id without a name
