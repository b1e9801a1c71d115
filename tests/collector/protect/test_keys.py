"""The token key on disk."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from collector.protect.keys import KeyFileError, load_or_create_token_key, load_token_key


def test_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    key = load_or_create_token_key(path, random_bytes=lambda count: bytes(range(count)))
    assert key == bytes(range(32))
    assert path.stat().st_mode & 0o777 == 0o600
    assert load_or_create_token_key(path, random_bytes=os.urandom) == key
    assert load_token_key(path) == key
    assert [entry.name for entry in tmp_path.iterdir()] == ["token.key"]


def test_processes_that_start_at_once_agree(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    with ThreadPoolExecutor(16) as pool:
        keys = set(pool.map(lambda _: load_or_create_token_key(path, random_bytes=os.urandom), range(64)))
    assert len(keys) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["token.key"]


def test_death_before_the_name_stands_leaves_no_key(tmp_path: Path) -> None:
    calls = 0

    def dies_at_the_second(count: int) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 2:
            raise OSError("the process died here")
        return bytes(count)

    path = tmp_path / "token.key"
    with pytest.raises(OSError, match="died here"):
        load_or_create_token_key(path, random_bytes=dies_at_the_second)
    assert not path.exists()
    assert len(load_or_create_token_key(path, random_bytes=os.urandom)) == 32


@pytest.mark.parametrize("content", [b"", b"\n", b"zz" * 32, b"00" * 31, b"00" * 33, b"0" * 63, b"\xff" * 64])
def test_file_without_a_key_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "token.key"
    path.write_bytes(content)
    path.chmod(0o600)
    with pytest.raises(KeyFileError, match=r"token\.key holds no key"):
        load_or_create_token_key(path, random_bytes=os.urandom)
    assert path.read_bytes() == content


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "token.key"
    load_or_create_token_key(path, random_bytes=os.urandom)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="mode 0640"):
        load_token_key(path)


def test_folder_is_no_key(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(KeyFileError, match="not a regular file"):
        load_token_key(tmp_path)


def test_missing_folder_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        load_or_create_token_key(tmp_path / "absent" / "token.key", random_bytes=os.urandom)
