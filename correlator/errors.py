"""The errors of this package that callers act on: those of `collector.errors`, under the names used here.

`VerificationError` is the only one that a pure module of this package (entry, merkle, checkpoint, proof, verify) raises.
"""

from collector.errors import Conflict, NotFound, Overloaded, StateUnknown, TallyError, VerificationError

__all__ = ["Conflict", "NotFound", "Overloaded", "StateUnknown", "TallyError", "VerificationError"]
