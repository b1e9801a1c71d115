"""What happened? The sidecar beside a service: ways in, protection, spool, batches, shipping, and the event store.

Owns the nouns `Event` (OpenTelemetry's log data model plus transaction, business keys, actor, outcome, origin and
resource), `Batch` (a numbered, chained, signed run of events), `Recorder` (record an event: durable on return) and
`EventStore` (where shipped batches live). A sender's acknowledgement goes out only after the event is on disk, and
nothing personal is written before `protect` has seen it. Imports no other package of Tallystick.
"""
