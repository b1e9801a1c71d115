"""What can be proved? Stitches events into trails and makes each one a leaf of an append-only, signed Merkle log.

Owns the nouns `Entry` (one leaf: an event's place in its trail, a link, a gap, a verdict …), `Checkpoint` (the signed
size and root of the log), `AuditLog` (the log's only writer) and `TrailIndex` (finds trails; rebuilt at any time, never
the record). Entries, Merkle arithmetic, checkpoints, proofs, verification, stitching, flows and clock skew are pure
modules: bytes in, values or `VerificationError` out. Imports `collector` alone.
"""
