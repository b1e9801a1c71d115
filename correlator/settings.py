"""The correlator's part of ``tally.toml``: the table ``[correlator]``. Every key is optional, unknown ones are refused."""

from typing import Annotated

import msgspec

from correlator.flow import Flow
from correlator.shards import MAX_SHARDS

__all__ = ["CorrelatorSettings"]

_PublicKey = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_CollectorName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]


class CorrelatorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings of the correlator.

    Attributes:
        key_order: names of business keys, strongest first: an event without a transaction ID goes to the trail of its strongest
            key. Keys not listed come after, by name.
        hub_links: a key's trail with more links than this is a hub: recorded, not followed.
        enrol_on_first_use: accept the first public key seen of a collector that is not listed in `enrolled`. The entry of
            kind enrolment says so. Turn it off where collectors are listed.
        enrolled: collector name -> the public keys (64 hex digits) that may sign its streams.
        recorders: names of our own recorders, whose accesses are believed.
        flows: declared flows (docs/flows.md).
        shards: how many logs the ledger is cut into by trail, each with a correlator of its own (docs/operating.md, Shards). Fixed when the
            ledger begins.
        statement_seconds: how often a correlator looks whether the joint statement over all shards can be renewed.
        step_entries: a publish takes no further batch after about so many entries.
        streams_a_step: streams read in one step, in turn.
        poll_min_seconds: pause after a step that found something; as long as the step itself, if that took longer.
        poll_max_seconds: pause that it grows to while there is nothing.
        silent_heartbeats: a stream is called silent after so many of its heartbeats were missed.
        missing_poll_seconds: how often the store is asked for batches that were missing: of each stream for 64 of them, in turn.
        hot_trails: trails of one generation kept in memory (there are two); bounds the correlator's memory.
        standby: wait while another process writes the log, and take over when it ends or hangs, rather than refuse to start.
        renew_seconds: an idle writer shows so often that it lives, by writing the log's head again.
        take_over_seconds: a standby takes over when the head has not changed for so long, by its own monotonic clock. The same on
            all correlators of a log, and at least twice `renew_seconds`.
        metrics_port: where /metrics, /livez and /readyz are served on localhost; 0 chooses a free port. Shard N takes the port N - 1 further.
    """

    key_order: tuple[str, ...] = ()
    hub_links: Annotated[int, msgspec.Meta(ge=1)] = 20
    enrol_on_first_use: bool = True
    enrolled: dict[_CollectorName, tuple[_PublicKey, ...]] = {}
    recorders: tuple[_CollectorName, ...] = ("api",)
    flows: tuple[Flow, ...] = ()
    shards: Annotated[int, msgspec.Meta(ge=1, le=MAX_SHARDS)] = 1
    statement_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=3_600)] = 1.0
    step_entries: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 8_192
    streams_a_step: Annotated[int, msgspec.Meta(ge=1, le=4_096)] = 16
    poll_min_seconds: Annotated[float, msgspec.Meta(ge=0.001, le=60)] = 0.02
    poll_max_seconds: Annotated[float, msgspec.Meta(ge=0.001, le=60)] = 1.0
    silent_heartbeats: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 3
    missing_poll_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=3_600)] = 1.0
    hot_trails: Annotated[int, msgspec.Meta(ge=1_024)] = 32_768
    standby: bool = False
    renew_seconds: Annotated[float, msgspec.Meta(ge=0.05, le=60)] = 3.0
    take_over_seconds: Annotated[float, msgspec.Meta(ge=0.2, le=600)] = 10.0
    metrics_port: Annotated[int, msgspec.Meta(ge=0, le=65_535)] = 0

    def __post_init__(self) -> None:
        """Refuse two flows of one name, flows that shards cannot judge, and a standby that is less patient than a healthy writer."""
        names = [flow.name for flow in self.flows]
        if len(set(names)) != len(names):
            raise ValueError("two flows have the same name")
        for flow in self.flows if self.shards > 1 else ():
            if flow.trail != "transaction":
                raise ValueError(
                    f"flow {flow.name}: over {flow.trail} trails it counts events that are in other shards' logs: with"
                    " shards, flows are over transactions"
                )
        if self.take_over_seconds < 2 * self.renew_seconds:
            raise ValueError("take_over_seconds must be at least twice renew_seconds, or a healthy writer is deposed")
