"""Which shards the configured ledger is cut into, and whether that is what the ledger itself says."""

from correlator.derived import placement_of
from correlator.errors import VerificationError
from correlator.head import decode_head
from correlator.metrics import CorrelatorMetrics
from correlator.note import Signer
from correlator.shards import Shard, every_shard
from correlator.statement import Statement, is_statement
from correlator.statementwriter import StatementWriter
from deploy.config import Config, ConfigError
from deploy.logstorage import log_storage

__all__ = ["check_cut", "chosen_shard", "shards_of", "statement_writer"]


def shards_of(config: Config) -> tuple[Shard, ...]:
    """The shards, by number; of a ledger that is not cut the one that is all of it."""
    return every_shard(config.correlator.shards)


def chosen_shard(config: Config, number: int | None) -> Shard:
    """The shard that a correlator was told to write; None: it was told nothing. Raises `ConfigError`."""
    shards = shards_of(config)
    if number is None and len(shards) > 1:
        raise ConfigError(f"the ledger is cut into {len(shards)} shards: say which with --shard 1 to {len(shards)}")
    number = 1 if number is None else number
    if not 1 <= number <= len(shards):
        raise ConfigError(f"there is no shard {number}: correlator.shards is {len(shards)}")
    return shards[number - 1]


def check_cut(config: Config) -> None:
    """Refuse a configured number of shards that is not the one that the ledger began with; fine where it has not begun.

    Raises:
        ConfigError: it is another one.
        Overloaded, StateUnknown: the storage does not answer.
    """
    raw = log_storage(config).read_head()
    if raw is None:
        return
    wanted = config.correlator.shards
    try:
        if is_statement(raw):
            found = Statement.parse(raw[: raw.rfind(b"\n\n") + 1]).count
        else:
            decode_head(raw)
            found = 1
    except VerificationError:
        if not (wanted == 1 and is_statement(raw)):
            return  # it was changed: that is said by whoever reads it
        found = 0
    if found != wanted:
        known = "is not cut" if found == 1 else f"is cut into {found or 'several'} shards"
        raise ConfigError(
            f"correlator.shards is {wanted}, and the ledger {config.ledger} {known}: the number of shards is fixed"
            " when a ledger begins (docs/operating.md, Shards)"
        )


def statement_writer(config: Config, signer: Signer, metrics: CorrelatorMetrics) -> StatementWriter:
    """What writes the joint statement of a ledger that is cut; `signer` is the ledger's."""
    logs = {shard: log_storage(config, shard) for shard in shards_of(config)}
    placement = placement_of(config.correlator)
    return StatementWriter(log_storage(config), logs, signer, placement=placement, metrics=metrics)
