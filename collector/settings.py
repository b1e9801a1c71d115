"""The collector's part of ``tally.toml``: the table ``[collector]``. Every key is optional, unknown ones are refused."""

from typing import Annotated, Literal

import msgspec

from collector.extract import StitchSettings
from collector.protect.fields import DEFAULT_MASKED_FIELDS
from collector.receive.syslog.settings import SyslogSettings
from collector.receive.tail.settings import KubernetesSettings, TailSettings

__all__ = ["CollectorSettings", "ForwardSettings", "HttpSettings", "ProtectSettings", "ShipSettings", "SpoolSettings"]

_Port = Annotated[int, msgspec.Meta(ge=-1, le=65_535)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]


class ForwardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fluent Forward (Fluentd, Fluent Bit, fluent-logger).

    Attributes:
        host: address to listen on. Anything but this machine needs TLS in front, or `shared_key_file` and a private network.
        port: TCP port; 0 chooses a free one, -1 turns TCP off.
        unix_socket: path of a unix socket to listen on as well; empty for none.
        shared_key_file: file with the key of the Forward handshake; empty: no handshake.
        tls_certificate, tls_key: PEM files; both or neither.
    """

    host: str = "127.0.0.1"
    port: _Port = 24224
    unix_socket: str = ""
    shared_key_file: str = ""
    tls_certificate: str = ""
    tls_key: str = ""


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sidecar's HTTP server: OTLP, JSON lines, /metrics, /livez, /readyz.

    Attributes:
        host: address to listen on.
        port: TCP port; 0 chooses a free one, -1 turns HTTP off.
        max_body_bytes: longest request body as sent; decompressed it may be four times as long.
        tls_certificate, tls_key: PEM files; both or neither.
    """

    host: str = "127.0.0.1"
    port: _Port = 4318
    max_body_bytes: _Positive = 16 * 1024**2
    tls_certificate: str = ""
    tls_key: str = ""


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept on the sidecar's disk.

    Attributes:
        max_bytes: bound of the spool; beyond it senders hear that they must wait.
        dead_letters_max_bytes: bound of the dead letters; beyond it senders hear it, too.
        journal_ids: how many source ids are remembered, so that a re-send is recognised.
        max_event_bytes: longest event; a longer one becomes a dead letter.
    """

    max_bytes: _Positive = 4 * 1024**3
    dead_letters_max_bytes: _Positive = 256 * 1024**2
    journal_ids: _Positive = 2_000_000
    max_event_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=8 * 1024**2)] = 1024**2


class ShipSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How batches go to the store.

    Attributes:
        batch_events: a batch is cut at about so many events.
        batch_bytes: or at about so many bytes.
        linger_seconds: how long a batch waits for more events.
        heartbeat_seconds: a quiet stream signs an empty batch this often, so that its silence would be noticed; 0: never.
        drain_seconds: how long a stop waits until everything is shipped; what is not is shipped after the next start.
    """

    batch_events: Annotated[int, msgspec.Meta(ge=1, le=32_768)] = 2_000
    batch_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=32 * 1024**2)] = 4 * 1024**2
    linger_seconds: _Seconds = 0.05
    heartbeat_seconds: Annotated[int, msgspec.Meta(ge=0, le=86_400)] = 60
    drain_seconds: _Seconds = 10.0


class ProtectSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is masked beside card numbers, which always are (docs/threat-model.md).

    Attributes:
        masked_fields: names of fields whose value becomes ``***``; a leading ``*`` stands for any path or prefix.
        dropped_fields: names of fields that are taken out.
    """

    masked_fields: tuple[str, ...] = DEFAULT_MASKED_FIELDS
    dropped_fields: tuple[str, ...] = ()


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sidecar.

    Attributes:
        name: the collector's name, the first part of its stream ids: lower-case letters, digits, dots, dashes, underscores.
        service: ``service.name`` of records that do not name one; empty: the first segment of their Forward tag.
        ack: when a sender is told that its events are taken: ``spool``, after the fsync on this disk; ``store``, when the event store
            has them. A store that does not answer within 5 seconds is told to the sender, which is to send again
            (docs/life-of-an-event.md).
        mappings: files that say what the fields of others' logs mean, and ``preset:NAME`` for those that come with Tallystick
            (docs/mappings.md); the first mapping that is for a record is used.
        forward: Fluent Forward.
        http: OTLP, JSON lines, metrics.
        syslog: RFC 5424 over TCP, TLS and UDP.
        tail: files to follow.
        kubernetes: what is asked about the pods whose files are followed.
        spool: bounds on disk.
        ship: batches.
        protect: masking.
        stitch: where transaction IDs and business keys stand.
    """

    name: _Name = "collector"
    service: str = ""
    ack: Literal["spool", "store"] = "spool"
    mappings: tuple[str, ...] = ()
    forward: ForwardSettings = ForwardSettings()
    http: HttpSettings = HttpSettings()
    syslog: SyslogSettings = SyslogSettings()
    tail: tuple[TailSettings, ...] = ()
    kubernetes: KubernetesSettings = KubernetesSettings()
    spool: SpoolSettings = SpoolSettings()
    ship: ShipSettings = ShipSettings()
    protect: ProtectSettings = ProtectSettings()
    stitch: StitchSettings = StitchSettings()

    def __post_init__(self) -> None:
        """Refuse two entries of the tail that cannot be told apart."""
        labels = [entry.label for entry in self.tail]
        for label in labels:
            if labels.count(label) > 1:
                raise ValueError(f"tail: two entries are called {label!r}: give them a name")
