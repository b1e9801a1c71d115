"""Syslog: RFC 5424 over TCP (RFC 6587), TLS (RFC 5425) and UDP (RFC 5426); the older RFC 3164 is understood as far as it says anything.

Pure: `framing` cuts a stream into messages, `message` parses one, `events` makes an arrival of it. `receiver` listens.

No form of syslog acknowledges anything or names a message: see docs/ways-in.md for what that means.
"""
