"""What a person kept of a ledger from before: a signed checkpoint, or the joint statement of one that is cut into shards."""

from correlator.checkpoint import Checkpoint, open_checkpoint
from correlator.note import Verifier
from correlator.shards import key_of_log
from correlator.statement import Statement, is_statement, open_statement

__all__ = ["open_remembered"]


def open_remembered(data: bytes, verifier: Verifier) -> Checkpoint | Statement:
    """Read it; `verifier` is the ledger's key, which signs its shards' checkpoints too.

    Raises:
        VerificationError: neither of the two, or not signed by that key.
    """
    if is_statement(data):
        return open_statement(data, verifier)
    origin = data.partition(b"\n")[0].decode("utf-8", "replace")
    return open_checkpoint(data, key_of_log(verifier, origin))
