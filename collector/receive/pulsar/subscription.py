"""A consumer of the library, which works in threads of its own and blocks its caller.

Nothing here knows an event loop, and the library calls nothing of ours but the token's supplier: what it hands out is asked for. So nothing is on its way
to somebody who has gone, and what was asked for and not acknowledged the broker delivers again.
"""

import ssl
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import pulsar
from pulsar.exceptions import PulsarException

from collector.errors import Malformed
from collector.receive.pulsar.librarylog import library_log
from collector.receive.pulsar.message import Delivery
from collector.receive.pulsar.settings import PulsarSettings
from collector.secretfile import read_secret

__all__ = ["Subscription", "Token", "Turn"]

_ANSWER_SECONDS = 10
_TURN_MS = 200
_TURN_BYTES = 16 * 1024**2
_MAX_TOKEN_BYTES = 16_384

_TYPES = {
    "key_shared": pulsar.ConsumerType.KeyShared,
    "shared": pulsar.ConsumerType.Shared,
    "failover": pulsar.ConsumerType.Failover,
}
_BUSY = "the subscription is in use as one of another type"
_MEANINGS: dict[type[Exception], str] = {
    pulsar.Timeout: f"no answer in {_ANSWER_SECONDS} s; or the broker takes no such token, or no such certificate of ours",
    pulsar.ConnectError: "no connection; or the broker's certificate is not of tls_ca, or for another host",
    pulsar.AuthenticationError: "the broker does not let us in, or a file of TLS cannot be read",
}
"""Of what the library says in a word, and nothing else."""


class Token:
    """The token of a file, read anew whenever it is asked for: what issues tokens that expire puts another one there.

    Raises:
        OSError: the file cannot be read.
        Malformed: it holds none.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._last = self._read()

    def _read(self) -> str:
        return read_secret(self._file, at_most=_MAX_TOKEN_BYTES).decode("ascii", "replace")

    def __call__(self) -> str:
        """The token, for the library's thread; where the file cannot be read now, the one before."""
        with suppress(OSError, Malformed):
            self._last = self._read()
        return self._last


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What has come, and whether all brokers of the topics are connected."""

    messages: list[pulsar.Message]
    connected: bool


class Subscription:
    """See the module. `close` may be called while another call is under way, which then ends; else one call is made at a time.

    Args:
        settings: of the entry.
        token: gives the token; None: none is shown.
    """

    def __init__(self, settings: PulsarSettings, token: Callable[[], str] | None) -> None:
        self._settings = settings
        own = settings
        self._log = library_log()
        scheme = "pulsar+ssl" if own.tls else "pulsar"
        authentication: pulsar.Authentication | None = None
        if token is not None:
            authentication = pulsar.AuthenticationToken(token)
        elif own.tls_certificate:
            authentication = pulsar.AuthenticationTLS(own.tls_certificate, own.tls_key)
        self._client = pulsar.Client(
            f"{scheme}://{','.join(own.brokers)}",
            authentication=authentication,
            operation_timeout_seconds=_ANSWER_SECONDS,
            connection_timeout_ms=_ANSWER_SECONDS * 1000,
            tls_trust_certs_file_path=own.tls_ca or ssl.get_default_verify_paths().cafile,
            tls_allow_insecure_connection=False,
            tls_validate_hostname=True,
            tls_certificate_file_path=own.tls_certificate or None,
            tls_private_key_file_path=own.tls_key or None,
            logger=self._log.logger,
        )
        self._consumer: pulsar.Consumer | None = None

    def open(self) -> None:
        """Connect and subscribe.

        Raises:
            ConnectionError: it cannot be; the message says why, as far as the library does.
        """
        own = self._settings
        earliest = own.start == "earliest"
        ahead = max(1, own.prefetch // len(own.topics))  # the client counts for each topic by itself
        self._log.forget()
        try:
            self._consumer = self._client.subscribe(
                list(own.topics),
                own.subscription,
                consumer_type=_TYPES[own.subscription_type],
                receiver_queue_size=ahead,
                max_total_receiver_queue_size_across_partitions=ahead,
                initial_position=pulsar.InitialPosition.Earliest if earliest else pulsar.InitialPosition.Latest,
            )
        except PulsarException as error:
            busy = isinstance(error, pulsar.ConsumerBusy)
            why = _BUSY if busy else self._log.cause() or _MEANINGS.get(type(error), "")
            raise ConnectionError(f"{error}: {why}" if why else str(error)) from error

    def read(self) -> Turn:
        """What has come: a batch at the most, and nothing when nothing comes in a moment."""
        assert self._consumer is not None
        messages: list[pulsar.Message] = []
        size = 0
        with suppress(pulsar.Timeout):
            while len(messages) < self._settings.batch_messages and size < _TURN_BYTES:
                message = self._consumer.receive(timeout_millis=0 if messages else _TURN_MS)
                messages.append(message)
                size += len(message.data())
        return Turn(messages=messages, connected=self._consumer.is_connected())

    def acknowledge(self, messages: list[pulsar.Message]) -> None:
        """Let the library tell the brokers that these were taken, within 100 ms, each by itself."""
        assert self._consumer is not None
        for message in messages:
            self._consumer.acknowledge(message)

    def delivery(self, message: pulsar.Message) -> Delivery:
        """What a message holds."""
        place = message.message_id()
        try:
            properties = dict(message.properties())
        except UnicodeDecodeError:
            properties = None
        return Delivery(
            topic=message.topic_name(),
            subscription=self._settings.subscription,
            ledger=place.ledger_id(),
            entry=place.entry_id(),
            partition=place.partition(),
            batch_index=place.batch_index(),
            value=None if message.has_null_value() else message.data(),
            properties=properties,
            key=_text(message.partition_key),
            ordering_key=_text(message.ordering_key),
            producer=_text(message.producer_name),
            published_ms=message.publish_timestamp(),
            event_ms=message.event_timestamp(),
        )

    def close(self) -> None:
        """Send what is acknowledged, and leave; the brokers deliver the rest to others."""
        if self._consumer is not None:
            with suppress(PulsarException):
                self._consumer.close()
        with suppress(PulsarException):
            self._client.close()


def _text(read: Callable[[], str]) -> str:
    try:
        return read()
    except UnicodeDecodeError:
        return ""
