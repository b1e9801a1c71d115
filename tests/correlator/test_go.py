"""Our log, read by the Go checksum database's own libraries, which know nothing of Tallystick."""

import base64
import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from correlator import merkle
from correlator.checkpoint import open_checkpoint
from correlator.log import LogReader
from correlator.note import Signer, Verifier
from correlator.storage.file import FileStorage
from tests.support.logs import SIGNER, entries_of, grow, open_log
from tests.support.need import need

pytestmark = [pytest.mark.gotest, pytest.mark.timeout(600)]

SIZE = 65_536 + 300
SIZES = (1, 2, 3, 255, 256, 257, 1000, 65_535, 65_536, 65_537, SIZE)


@pytest.fixture(scope="session")
def logcheck(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Go program beside this file, built."""
    go = shutil.which("go")
    need(go, "no Go toolchain: install Go 1.25 or newer")
    assert go is not None
    program = tmp_path_factory.mktemp("go") / "logcheck"
    folder = Path(__file__).resolve().parent / "go"
    built = subprocess.run(
        [go, "build", "-mod=readonly", "-o", str(program), "."], cwd=folder, capture_output=True, text=True, check=False
    )
    assert built.returncode == 0, built.stderr
    return program


@pytest.fixture(scope="module")
def log_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log on disk, grown in steps, with three levels of tiles."""
    folder = tmp_path_factory.mktemp("log")
    with open_log(FileStorage(folder)) as log:
        grow(log, [1, 300, 1000, 65_536, SIZE])
    return folder


def run(program: Path, *arguments: str, given: object = None) -> subprocess.CompletedProcess[str]:
    text = json.dumps(given)
    return subprocess.run(
        [str(program), *arguments],
        input=text,
        capture_output=True,
        text=True,
        check=False,
        env=dict(os.environ),
        timeout=300,
    )


def text_of(value: bytes) -> str:
    return base64.b64encode(value).decode()


def proofs_of(reader: LogReader) -> dict[str, list[dict[str, Any]]]:
    inclusion = [
        {
            "Index": index,
            "Size": size,
            "Leaf": text_of(merkle.leaf_hash(entries_of(index, index + 1)[0])),
            "Proof": [text_of(part) for part in reader.inclusion(index, size)],
            "Root": text_of(reader.root(size)),
        }
        for size in SIZES
        for index in sorted({0, size // 3, size - 1})
    ]
    consistency = [
        {
            "Size1": size1,
            "Size2": size2,
            "Root1": text_of(reader.root(size1)),
            "Root2": text_of(reader.root(size2)),
            "Proof": [text_of(part) for part in reader.consistency(size1, size2)],
        }
        for size2 in SIZES
        for size1 in SIZES
        if size1 < size2
    ]
    return {"Inclusion": inclusion, "Consistency": consistency}


def test_go_reads_the_checkpoint_all_tiles_all_entries_and_our_proofs(logcheck: Path, log_dir: Path) -> None:
    proofs = proofs_of(LogReader(FileStorage(log_dir), SIGNER.verifier))
    done = run(logcheck, "check", str(log_dir), SIGNER.verifier.vkey, given=proofs)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "Size": SIZE,
        "Entries": SIZE,
        "Inclusion": len(proofs["Inclusion"]),
        "Consistency": len(proofs["Consistency"]),
    }


def test_go_refuses_what_was_changed(logcheck: Path, log_dir: Path, tmp_path: Path) -> None:
    reader = LogReader(FileStorage(log_dir), SIGNER.verifier)
    for path in ("checkpoint", "tile/0/007", "tile/entries/007", "tile/1/000"):
        copy = tmp_path / path.replace("/", "-")
        shutil.copytree(log_dir, copy)
        data = bytearray((copy / path).read_bytes())
        data[40] ^= 1
        (copy / path).write_bytes(data)
        done = run(logcheck, "check", str(copy), SIGNER.verifier.vkey, given={})
        assert done.returncode == 1, (path, done.stdout)
    for kind in ("Inclusion", "Consistency"):
        proofs = {kind: proofs_of(reader)[kind]}
        proof = proofs[kind][-1]["Proof"]
        proof[0], proof[1] = proof[1], proof[0]
        assert run(logcheck, "check", str(log_dir), SIGNER.verifier.vkey, given=proofs).returncode == 1
    stranger = Signer.generate(SIGNER.name).verifier.vkey
    assert run(logcheck, "check", str(log_dir), stranger, given={}).returncode == 1


def test_we_read_the_keys_and_checkpoints_that_go_makes(logcheck: Path) -> None:
    done = run(logcheck, "sign", "a.example/log")
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)
    verifier = Verifier.parse(made["vkey"])
    checkpoint = open_checkpoint(made["checkpoint"].encode(), verifier)
    assert (checkpoint.origin, checkpoint.size, checkpoint.root) == ("a.example/log", 3, merkle.leaf_hash(b"root"))
    assert Signer.parse(made["skey"]).verifier == verifier
