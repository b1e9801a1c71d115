"""The collector's part of ``tally.toml``: the table ``[collector]``. Every key is optional, unknown ones are refused."""

from typing import Annotated, Literal

import msgspec

from collector.event import MAX_EVENT_BYTES
from collector.extract import StitchSettings
from collector.onward.settings import MetricsToSettings
from collector.protect.fields import DEFAULT_MASKED_FIELDS
from collector.receive.amqp.settings import AmqpSettings
from collector.receive.kafka.settings import KafkaSettings
from collector.receive.listening import check_listening
from collector.receive.pulsar.settings import PulsarSettings
from collector.receive.syslog.settings import SyslogSettings
from collector.receive.tail.settings import KubernetesSettings, TailSettings

__all__ = [
    "BeatsSettings",
    "ClockSettings",
    "CollectorSettings",
    "ElasticsearchSettings",
    "ForwardSettings",
    "GrpcSettings",
    "HttpSettings",
    "ProtectSettings",
    "RelaySettings",
    "RequestsSettings",
    "ShipSettings",
    "SpoolSettings",
]

_Port = Annotated[int, msgspec.Meta(ge=-1, le=65_535)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]
_Seconds = Annotated[float, msgspec.Meta(ge=0.0, le=86_400.0)]
_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?$")]


class ForwardSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Fluent Forward (Fluentd, Fluent Bit, fluent-logger).

    Attributes:
        host: address to listen on. Anything but this machine needs TLS, keys, or `unprotected`.
        port: TCP port; 0 chooses a free one, -1 turns TCP off.
        unix_socket: path of a unix socket to listen on as well; empty for none.
        udp_heartbeat: answer fluentd's `heartbeat_type udp` on the same port.
        shared_key_file: file with the key of the Forward handshake, for clients without a key of their own; empty: there are no others.
        client_key_files: files with clients' own keys, by the hostname that they state (`self_hostname`).
        password_files: files with passwords, by user; where there are any, a user is demanded beside the key.
        tls_certificate, tls_key: PEM files; both or neither. TLS 1.2 or newer.
        tls_client_ca: PEM file with the authorities whose certificates senders must show; empty: none is demanded.
        unprotected: listen beyond this machine though anybody may send then and read along.
    """

    host: str = "127.0.0.1"
    port: _Port = 24224
    unix_socket: str = ""
    udp_heartbeat: bool = False
    shared_key_file: str = ""
    client_key_files: dict[str, str] = {}
    password_files: dict[str, str] = {}
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        keys = bool(self.shared_key_file or self.client_key_files)
        if self.password_files and not keys:
            raise ValueError(
                "password_files go with shared_key_file or client_key_files: users are asked for in the handshake"
            )
        check_listening(self, on=self.port >= 0, keys=keys)


class HttpSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The sidecar's HTTP server: OTLP, JSON lines, /metrics, /livez, /readyz.

    Attributes:
        host: address to listen on.
        port: TCP port; 0 chooses a free one, -1 turns HTTP off.
        max_body_bytes: longest request body as sent; decompressed it may be four times as long.
        tls_certificate, tls_key: PEM files; both or neither. TLS 1.2 or newer.
        tls_client_ca: PEM file with the authorities whose certificates senders must show; empty: none is demanded.
        unprotected: listen beyond this machine though anybody may send then and read along.
    """

    host: str = "127.0.0.1"
    port: _Port = 4318
    max_body_bytes: _Positive = 16 * 1024**2
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_listening(self, on=self.port >= 0)


class ElasticsearchSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An Elasticsearch- and OpenSearch-compatible ``_bulk`` endpoint (Logstash, Filebeat, Vector, Fluent Bit's es output, their clients).

    Attributes:
        host: address to listen on.
        port: TCP port, 9200 by convention; 0 chooses a free one, -1 turns it off.
        product: what it says that it is, where senders insist: ``elasticsearch`` for Elastic's own and most others; ``opensearch`` for
            Logstash's opensearch output.
        version: the version that it says it has; empty: one newer than any, since Beats refuse a server older than themselves.
        credentials_file: lines ``Basic user:password``, ``ApiKey id:key`` or ``Bearer token``, read at the start; empty: whoever can
            connect may send.
        max_body_bytes: longest request body as sent; decompressed it may be four times as long.
        tls_certificate, tls_key: PEM files; both or neither. TLS 1.2 or newer.
        tls_client_ca: PEM file with the authorities whose certificates senders must show; empty: none is demanded.
        unprotected: listen beyond this machine though anybody may send then and read along.
    """

    host: str = "127.0.0.1"
    port: _Port = -1
    product: Literal["elasticsearch", "opensearch"] = "elasticsearch"
    version: Annotated[str, msgspec.Meta(pattern=r"^([0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,3})?$")] = ""
    credentials_file: str = ""
    max_body_bytes: _Positive = 32 * 1024**2
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_listening(self, on=self.port >= 0)


class BeatsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Lumberjack, the protocol of Beats' Logstash output.

    Attributes:
        host: address to listen on.
        port: TCP port, 5044 by convention; 0 chooses a free one, -1 turns it off.
        tls_certificate, tls_key: PEM files; both or neither. TLS 1.2 or newer.
        tls_client_ca: PEM file with the authorities whose certificates senders must show; empty: none is demanded.
        unprotected: listen beyond this machine though anybody may send then and read along.
    """

    host: str = "127.0.0.1"
    port: _Port = -1
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_listening(self, on=self.port >= 0)


class GrpcSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """OTLP over gRPC.

    Attributes:
        host: address to listen on.
        port: TCP port, by convention 4317; 0 chooses a free one, -1 turns gRPC off. On, it needs the extra ``tallystick[grpc]``.
        max_message_bytes: longest message as sent; decompressed it may be four times as long.
        tls_certificate, tls_key: PEM files; both or neither. TLS 1.2 or newer.
        tls_client_ca: PEM file with the authorities whose certificates senders must show; empty: none is demanded.
        unprotected: listen beyond this machine though anybody may send then and read along.
    """

    host: str = "127.0.0.1"
    port: _Port = -1
    max_message_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=64 * 1024**2)] = 4 * 1024**2
    tls_certificate: str = ""
    tls_key: str = ""
    tls_client_ca: str = ""
    unprotected: bool = False

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        check_listening(self, on=self.port >= 0)


class SpoolSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept on the sidecar's disk.

    Attributes:
        max_bytes: bound of the spool; beyond it senders hear that they must wait.
        shared_percent: so much of `max_bytes`, the last to be filled, is shared out equally between the ways in, so that one that fills the spool leaves room for the
            others (docs/under-pressure.md, "Between senders"). 0: first come, first served.
        max_age_seconds: while the oldest event that the store does not have has waited longer, senders hear that they must wait; 0: it may wait
            until the spool is full.
        keep_free_bytes: what is kept free on its disk for shipping what it holds; with less left, senders hear that they must wait.
        dead_letters_max_bytes: bound of the dead letters; beyond it senders hear it, too.
        journal_ids: how many source ids are remembered, so that a re-send is recognised.
        max_event_bytes: longest event; a longer one becomes a dead letter.
    """

    max_bytes: _Positive = 4 * 1024**3
    shared_percent: Annotated[int, msgspec.Meta(ge=0, le=50)] = 10
    max_age_seconds: Annotated[float, msgspec.Meta(ge=0.0, le=31_536_000.0)] = 0.0
    keep_free_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64 * 1024**2
    dead_letters_max_bytes: _Positive = 256 * 1024**2
    journal_ids: _Positive = 2_000_000
    max_event_bytes: Annotated[int, msgspec.Meta(ge=1_024, le=MAX_EVENT_BYTES)] = 1024**2


class ShipSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How batches go to the store.

    Attributes:
        batch_events: a batch is cut at about so many events.
        batch_bytes: or at about so many bytes.
        linger_seconds: how long a batch that is not half full waits for more events.
        heartbeat_seconds: a quiet stream signs an empty batch this often, so that its silence would be noticed; 0: never.
        drain_seconds: how long a stop may take: what senders have in flight is finished, in half of it at most (1 s at least), then what is
            spooled is shipped; what is not is shipped after the next start.
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


class RelaySettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The collector that this one ships to, by Forward, instead of a store (docs/ways-in.md, "Collectors in a chain").

    Attributes:
        host: where the upstream listens; empty: ship to the store.
        port: its Forward port.
        tls: speak TLS; without it, whoever is in between reads along.
        tls_ca: PEM file with the authorities that its certificate may be of; empty: the system's.
        tls_server_name: the name that its certificate must have; empty: `host`.
        tls_certificate, tls_key: PEM files, for an upstream that wants to see a certificate; both or neither.
        shared_key_file: file with the key of the handshake; empty: no handshake. The collector's name is its `self_hostname`.
        user: whom the upstream asks for beside the key; empty: nobody.
        password_file: file with the user's password.
        compression: of what is sent.
    """

    host: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 24224
    tls: bool = True
    tls_ca: str = ""
    tls_server_name: str = ""
    tls_certificate: str = ""
    tls_key: str = ""
    shared_key_file: str = ""
    user: str = ""
    password_file: str = ""
    compression: Literal["none", "gzip", "zstd"] = "zstd"

    def __post_init__(self) -> None:
        """Refuse what cannot be used together."""
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ValueError("tls_certificate and tls_key go together")
        if bool(self.user) != bool(self.password_file):
            raise ValueError("user and password_file go together")
        if self.user and not self.shared_key_file:
            raise ValueError("a user goes with shared_key_file: users are asked for in the handshake")
        if not self.tls and (self.tls_ca or self.tls_server_name or self.tls_certificate):
            raise ValueError("tls = false, and yet there are settings for it")


class RequestsSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Rate, errors and duration of services on ``/metrics``, from server and consumer spans and access logs (docs/operating.md).

    Attributes:
        max_services: so many names of services at most; the requests of the rest are counted under ``other``. 0: requests are not counted.
        max_operations: so many names of operations at most of each service and kind; the requests of the rest are counted under ``other``.
    """

    max_services: Annotated[int, msgspec.Meta(ge=0, le=1_000)] = 20
    max_operations: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 50


class ClockSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How far this machine's clock is off, which every batch says in its signed header (docs/under-pressure.md, "The clock").

    Attributes:
        server: a time server (NTP) that is asked; empty: what the kernel knows from whoever synchronises its clock.
        port: its UDP port.
        interval_seconds: how often it is asked.
    """

    server: str = ""
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 123
    interval_seconds: Annotated[int, msgspec.Meta(ge=16, le=86_400)] = 64


class CollectorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One sidecar.

    Attributes:
        name: the collector's name, the first part of its stream ids: lower-case letters, digits, dots, dashes, underscores.
        service: ``service.name`` of records that do not name one; empty: the first segment of their Forward tag.
        ack: when a sender is told that its events are taken: ``spool``, after the fsync on this disk; ``store``, when the event store
            has them. A store that does not answer within 5 seconds is told to the sender, which is to send again
            (docs/life-of-an-event.md).
        speakers: services that not everybody may speak for: each with those who alone may, as `origin.peer` names them
            (`certificate:NAME`, `user:NAME`, `client:HOSTNAME`). From others, an event that names one of these services is a dead letter;
            `tally import` is not asked.
        mappings: files that say what the fields of others' logs mean, and ``preset:NAME`` for those that come with Tallystick
            (docs/mappings.md); the first mapping that is for a record is used.
        forward: Fluent Forward.
        http: OTLP, JSON lines, metrics.
        beats: Filebeat and the other Beats, as to Logstash.
        elasticsearch: ``_bulk``, as Elasticsearch and OpenSearch have it.
        grpc: OTLP over gRPC.
        metrics_to: where the data points of OTLP metrics go.
        syslog: RFC 5424 over TCP, TLS and UDP.
        tail: files to follow.
        kafka: topics to consume.
        amqp: queues of RabbitMQ to consume.
        pulsar: topics of Pulsar to consume.
        kubernetes: what is asked about the pods whose files are followed.
        spool: bounds on disk.
        ship: batches.
        relay: another collector to ship to.
        requests: rate, errors and duration of services.
        clock: how far it is off.
        protect: masking.
        stitch: where transaction IDs and business keys stand.
    """

    name: _Name = "collector"
    service: str = ""
    ack: Literal["spool", "store"] = "spool"
    speakers: dict[str, tuple[str, ...]] = {}
    mappings: tuple[str, ...] = ()
    forward: ForwardSettings = ForwardSettings()
    http: HttpSettings = HttpSettings()
    beats: BeatsSettings = BeatsSettings()
    elasticsearch: ElasticsearchSettings = ElasticsearchSettings()
    grpc: GrpcSettings = GrpcSettings()
    metrics_to: MetricsToSettings = MetricsToSettings()
    syslog: SyslogSettings = SyslogSettings()
    tail: tuple[TailSettings, ...] = ()
    kafka: tuple[KafkaSettings, ...] = ()
    amqp: tuple[AmqpSettings, ...] = ()
    pulsar: tuple[PulsarSettings, ...] = ()
    kubernetes: KubernetesSettings = KubernetesSettings()
    spool: SpoolSettings = SpoolSettings()
    ship: ShipSettings = ShipSettings()
    relay: RelaySettings = RelaySettings()
    requests: RequestsSettings = RequestsSettings()
    clock: ClockSettings = ClockSettings()
    protect: ProtectSettings = ProtectSettings()
    stitch: StitchSettings = StitchSettings()

    def __post_init__(self) -> None:
        """Refuse two entries of one kind that cannot be told apart, and a page that nothing serves."""
        if self.metrics_to.expose and self.http.port < 0:
            raise ValueError("metrics_to.expose shows metrics on the port of http, which is off")
        kinds = {
            "tail": [entry.label for entry in self.tail],
            "kafka": [entry.label for entry in self.kafka],
            "amqp": [entry.label for entry in self.amqp],
            "pulsar": [entry.label for entry in self.pulsar],
        }
        for kind, labels in kinds.items():
            for label in labels:
                if labels.count(label) > 1:
                    raise ValueError(f"{kind}: two entries are called {label!r}: give them a name")
