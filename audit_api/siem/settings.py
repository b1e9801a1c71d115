"""The part of ``tally.toml`` that says where the log is sent on to: ``[siem]``. Every key is optional, unknown ones are refused."""

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec

from correlator.entry import Kind
from correlator.index.condition import And, Condition, HasText, Not, Or
from correlator.index.filters import parse_filter

__all__ = ["AnyDestination", "DestinationSettings", "HttpSettings", "KafkaSettings", "SiemSettings", "SyslogSettings"]

_Name = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9_-]{0,62}$")]
_Port = Annotated[int, msgspec.Meta(ge=0, le=65_535)]
_Broker = Annotated[str, msgspec.Meta(pattern=r"^(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}$")]
_LOCAL = ("localhost", "127.0.0.1", "::1")
_PRINTABLE = re.compile(r"[\x21-\x7e]*", re.ASCII)
_MOST_DESTINATIONS = 16


class DestinationSettings(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True, tag_field="kind"
):
    """What every destination has.

    Attributes:
        name: what its cursor, its metrics and its record are called.
        start: where a destination begins that has no cursor yet: with the log's first entry (`beginning`), or with what comes next (`end`).
        entries: kinds of entries that are sent (event, link, verdict, batch, gap, enrolment, fork); empty: all.
        flows: of verdicts, those of these flows; empty: all.
        tenants: trails of these tenants alone; empty: of all, and of none.
        filter: a filter as in a search (docs/api.md), asked of each entry by itself; `text` is not possible. Empty: all.
        max_bytes: longest record; one that would be longer is sent cut, and says so.
        batch_records: most entries that are sent before the cursor moves.
        linger_seconds: how often it looks whether the log has grown.
        timeout_seconds: how long the destination may take to connect, and to answer.
    """

    name: _Name
    start: Literal["beginning", "end"] = "beginning"
    entries: tuple[Kind, ...] = ()
    flows: tuple[str, ...] = ()
    tenants: tuple[str, ...] = ()
    filter: str = ""
    max_bytes: Annotated[int, msgspec.Meta(ge=4_096, le=16_777_216)] = 262_144
    batch_records: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    linger_seconds: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 1.0
    timeout_seconds: Annotated[float, msgspec.Meta(ge=0.1, le=600)] = 30.0

    def __post_init__(self) -> None:
        """Refuse a filter that is none, or that no entry can be asked."""
        if (condition := self.condition()) is not None and _asks_text(condition):
            raise ValueError("filter: text is searched for in whole trails; no entry can be asked for it")

    def condition(self) -> Condition | None:
        """The filter, read; raises `ValueError` for what is none."""
        return parse_filter(self.filter) if self.filter else None

    @property
    def place(self) -> str:
        """Where it is, as it goes on record: never a credential."""
        raise NotImplementedError


def _asks_text(condition: Condition) -> bool:
    match condition:
        case And(parts) | Or(parts):
            return any(map(_asks_text, parts))
        case Not(part):
            return _asks_text(part)
        case _:
            return isinstance(condition, HasText)


def _check_tls(*, tls: bool, files: tuple[str, ...], certificate: str, key: str) -> None:
    if any(files) and not tls:
        raise ValueError("ca_file and client_certificate go with TLS")
    if bool(certificate) != bool(key):
        raise ValueError("client_certificate and client_key go together")


class SyslogSettings(DestinationSettings, frozen=True, kw_only=True, tag="syslog"):
    """Syslog (RFC 5424) over TLS (RFC 5425), or over TCP where that is said.

    Attributes:
        host, port: of the receiver.
        format: of the message: `cef`, or a line of `json`, `ecs` or `ocsf`.
        tls: without it everything goes over the network unencrypted.
        ca_file: PEM file with the authorities that are believed; empty: the system's.
        client_certificate, client_key: PEM files, where the receiver asks who sends; both or neither.
        facility: of the messages, 0 to 23; 13 is "log audit".
        hostname: the HOSTNAME of the messages; empty: this machine's name.
        enterprise_number: IANA private enterprise number of yours: then each message has structured data ``tally@<number>``; 0: it has none.
    """

    host: Annotated[str, msgspec.Meta(min_length=1, max_length=253)]
    port: Annotated[int, msgspec.Meta(ge=1, le=65_535)] = 6514
    format: Literal["cef", "json", "ecs", "ocsf"] = "cef"
    tls: bool = True
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    facility: Annotated[int, msgspec.Meta(ge=0, le=23)] = 13
    hostname: Annotated[str, msgspec.Meta(max_length=255)] = ""
    enterprise_number: Annotated[int, msgspec.Meta(ge=0, le=4_294_967_295)] = 0
    max_bytes: Annotated[int, msgspec.Meta(ge=4_096, le=16_777_216)] = 8_192

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to, and a host name that no message can carry."""
        super().__post_init__()
        files = (self.ca_file, self.client_certificate)
        _check_tls(tls=self.tls, files=files, certificate=self.client_certificate, key=self.client_key)
        if _PRINTABLE.fullmatch(self.hostname) is None:
            raise ValueError("hostname: printable ASCII without spaces (RFC 5424)")

    @property
    def place(self) -> str:
        """Where it is, as it goes on record."""
        return f"syslog{'+tls' if self.tls else ''}://{self.host}:{self.port}"


class HttpSettings(DestinationSettings, frozen=True, kw_only=True, tag="http"):
    """Batches over HTTP.

    Attributes:
        url: where to post; https unless it is this machine. It holds no credential and no query.
        envelope: `ndjson`, a record a line; `splunk` for Splunk's HTTP Event Collector; `bulk` for the bulk API of Elasticsearch and OpenSearch.
        format: of each record: `json`, `ecs` or `ocsf`.
        token_file: file with a token; empty: none is sent. It is read again for each connection.
        token_scheme: what stands before the token: `Bearer`, `Splunk`, `ApiKey` or `Basic`.
        gzip: whether bodies are compressed.
        ca_file: PEM file with the authorities that are believed; empty: the system's.
        client_certificate, client_key: PEM files, where the receiver asks who sends; both or neither.
        batch_bytes: longest body before compression, about.
    """

    url: str
    envelope: Literal["ndjson", "splunk", "bulk"] = "ndjson"
    format: Literal["json", "ecs", "ocsf"] = "ecs"
    token_file: str = ""
    token_scheme: Literal["Bearer", "Splunk", "ApiKey", "Basic"] = "Bearer"  # noqa: S105 - the scheme, not the token
    gzip: bool = True
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    batch_bytes: Annotated[int, msgspec.Meta(ge=65_536, le=67_108_864)] = 4_194_304

    def __post_init__(self) -> None:
        """Refuse what is no URL, holds a credential, or would carry everything unencrypted beyond this machine."""
        super().__post_init__()
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or "@" in parts.netloc:
            raise ValueError("url is none of the form http(s)://host:port/path, or holds a credential")
        if parts.query or parts.fragment:
            raise ValueError("url holds more than a place: no query, no fragment")
        if parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ValueError(f"url: records would go to {parts.hostname} unencrypted: use https")
        files = (self.ca_file, self.client_certificate)
        tls = parts.scheme == "https"
        _check_tls(tls=tls, files=files, certificate=self.client_certificate, key=self.client_key)

    @property
    def place(self) -> str:
        """Where it is, as it goes on record."""
        return self.url


class KafkaSettings(DestinationSettings, frozen=True, kw_only=True, tag="kafka"):
    """A topic of Kafka: every replica in sync acknowledges, and the producer is idempotent. A record's key is its trail.

    Attributes:
        brokers: `host:port` of one broker or more; the others are heard of from them.
        topic: its name.
        format: of each record: `json`, `ecs`, `ocsf` or `cef`.
        tls: whether to speak TLS.
        ca_file: PEM file that brokers' certificates are checked against; empty: the system's authorities.
        client_certificate, client_key: PEM files, for brokers that ask for a client's certificate; both or neither.
        sasl: mechanism by which we say who we are; empty: none. `PLAIN` needs TLS.
        user: its name, for SASL.
        password_file: file with its password.
    """

    brokers: Annotated[tuple[_Broker, ...], msgspec.Meta(min_length=1)]
    topic: Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9._-]{1,249}$")]
    format: Literal["json", "ecs", "ocsf", "cef"] = "json"
    tls: bool = True
    ca_file: str = ""
    client_certificate: str = ""
    client_key: str = ""
    sasl: Literal["", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = ""
    user: str = ""
    password_file: str = ""

    def __post_init__(self) -> None:
        """Refuse what would protect less than it seems to."""
        super().__post_init__()
        files = (self.ca_file, self.client_certificate)
        _check_tls(tls=self.tls, files=files, certificate=self.client_certificate, key=self.client_key)
        if bool(self.sasl) != bool(self.user) or bool(self.sasl) != bool(self.password_file):
            raise ValueError("sasl, user and password_file go together")
        if self.sasl == "PLAIN" and not self.tls:
            raise ValueError("sasl = PLAIN sends the password as it is: it needs tls = true")

    @property
    def place(self) -> str:
        """Where it is, as it goes on record."""
        return f"kafka://{','.join(self.brokers)}/{self.topic}"


AnyDestination = SyslogSettings | HttpSettings | KafkaSettings
"""Every kind of destination; ``kind`` says which."""


class SiemSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where the log is sent on to as it grows; without destinations there is nothing to run (docs/siem.md).

    Attributes:
        destinations: each with a cursor of its own; one that is away holds up no other.
        metrics_port: where /metrics, /livez and /readyz are served on localhost; 0 chooses a free port.
    """

    destinations: tuple[AnyDestination, ...] = ()
    metrics_port: _Port = 0

    def __post_init__(self) -> None:
        """Refuse two destinations of one name, which would share a cursor."""
        names = [one.name for one in self.destinations]
        if len(set(names)) != len(names):
            raise ValueError("two destinations have the same name")
        if len(names) > _MOST_DESTINATIONS:
            raise ValueError(f"at most {_MOST_DESTINATIONS} destinations")
