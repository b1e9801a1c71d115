"""The way out to other collectors, and the sender for services that shall hear whether their events are durable.

`Forwarder` speaks Fluent Forward as fluentd and Fluent Bit do (acks, handshake, TLS, compression), so it sends to them as well as to
our own receiver.
"""

from collector.send.forward import Forwarder, Upstream

__all__ = ["Forwarder", "Upstream"]
