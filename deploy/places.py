"""Where everything is kept under the data folder. One place says so; the packages are given paths."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Places"]


@dataclass(frozen=True, slots=True)
class Places:
    """The files and folders of one installation under `root`; nothing is made by asking for a path.

    `shard`: the name of the shard whose log, state and index are meant; empty for a ledger that is not cut.
    """

    root: Path
    shard: str = ""

    def of_shard(self, shard: str) -> "Places":
        """The same installation, with log, state and index of the shard of this name."""
        return Places(self.root, shard)

    @property
    def keys(self) -> Path:
        """Folder of the private keys, 0700: log.key, log.vkey, collector-<name>.key, cards.key."""
        return self.root / "keys"

    @property
    def log_key(self) -> Path:
        """The key that signs the log."""
        return self.keys / "log.key"

    @property
    def log_vkey(self) -> Path:
        """The log's public key as a C2SP verifier key: what is given to those who verify."""
        return self.keys / "log.vkey"

    def spool(self, collector: str) -> Path:
        """Spool of a collector."""
        return self.root / "spool" / collector

    @property
    def store(self) -> Path:
        """The embedded event store."""
        return self.root / "store.sqlite"

    @property
    def log(self) -> Path:
        """The log: C2SP files, head and staging. Of a cut ledger without a shard: where its shards' logs and the joint statement are."""
        return self.root / "log" / self.shard

    @property
    def state(self) -> Path:
        """The correlator's derived state."""
        return self.state_of("")

    def state_of(self, correlator: str) -> Path:
        """Derived state of the correlator of this name, where several share the data folder; the empty name is the only one's."""
        return self.root / "-".join(part for part in ("state", self.shard, correlator) if part)

    @property
    def index(self) -> Path:
        """The trail index."""
        return self.root / (f"index-{self.shard}.sqlite" if self.shard else "index.sqlite")

    @property
    def tokens(self) -> Path:
        """The API's tokens, hashed."""
        return self.root / "tokens.toml"

    @property
    def first_token(self) -> Path:
        """The token that was made at the first start, 0600 (`deploy.firsttoken`)."""
        return self.root / "first.token"

    @property
    def exports(self) -> Path:
        """Folder of the API's export jobs and their files, 0700: nothing that could not be made again."""
        return self.exports_of("")

    def exports_of(self, api: str) -> Path:
        """The same of the API process of this name, where several serve the ledger; the empty name is the only one's."""
        return self.root / "-".join(part for part in ("exports", api) if part)

    @property
    def searches(self) -> Path:
        """Folder of the searches that people keep in the API, 0700."""
        return self.root / "searches"

    @property
    def run(self) -> Path:
        """Folder of the running processes: ports, process ids, logs."""
        return self.root / "run"

    @property
    def detector(self) -> Path:
        """How far the detector has come (`alerting.detect.cursor`)."""
        return self.root / "detector.json"

    def siem(self, destination: str) -> Path:
        """How far the destination of this name has come (`audit_api.siem.cursor`)."""
        return self.root / "siem" / f"{destination}.json"

    @property
    def incidents(self) -> Path:
        """How far the keeper of incidents has come (`alerting.incidents.follow`)."""
        return self.root / "incidents.json"

    def make(self) -> None:
        """Make the data folder and the keys folder, readable by their owner alone."""
        for folder in (self.root, self.keys, self.run):
            folder.mkdir(parents=True, exist_ok=True)
        self.root.chmod(0o700)
        self.keys.chmod(0o700)
