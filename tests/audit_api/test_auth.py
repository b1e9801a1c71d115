"""Tokens: made, hashed, kept, expired, taken away; a file that cannot be trusted lets nobody in."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from audit_api.auth import (
    Principal,
    TokenFile,
    TokenRecord,
    TokensError,
    hash_token,
    new_token,
    parse_tokens,
    render_tokens,
)
from collector.event import format_time, parse_time

NOW = parse_time("2026-06-01T00:00:00Z")


def token_file(path: Path, *records: TokenRecord, mode: int = 0o600) -> TokenFile:
    path.write_text(render_tokens(records))
    path.chmod(mode)
    return TokenFile(path, clock=lambda: NOW)


def test_a_token_is_of_32_random_bytes() -> None:
    assert new_token(lambda count: bytes(range(count))) == "tally_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
    assert len({new_token() for _ in range(100)}) == 100


def test_a_token_tells_its_principal_and_roles(tmp_path: Path) -> None:
    token, other = new_token(), new_token()
    file = token_file(
        tmp_path / "tokens.toml",
        TokenRecord(principal="ann@example", roles=["auditor"], sha256=hash_token(token)),
        TokenRecord(principal="ann@example", roles=["sre", "auditor"], sha256=hash_token(other)),
    )
    assert file.authenticate(f"Bearer {token}") == Principal(name="ann@example", roles=frozenset({"auditor"}))
    assert file.authenticate(f"bearer  {other}") == Principal(name="ann@example", roles=frozenset({"auditor", "sre"}))
    assert file.authenticate(token) is None
    assert file.authenticate(f"Bearer {token[:-1]}") is None
    assert file.authenticate(f"Bearer {hash_token(token)}") is None
    assert file.principals() == [Principal(name="ann@example", roles=frozenset({"auditor", "sre"}))]
    assert token not in (tmp_path / "tokens.toml").read_text()


def test_a_token_expires(tmp_path: Path) -> None:
    token = new_token()
    for after, valid in ((1, True), (0, False), (-1, False)):
        expires = format_time(NOW + after)
        record = TokenRecord(principal="ann", roles=["sre"], sha256=hash_token(token), expires=expires)
        file = token_file(tmp_path / "tokens.toml", record)
        assert (file.authenticate(f"Bearer {token}") is not None) is valid


def test_a_change_counts_at_once(tmp_path: Path) -> None:
    path, token = tmp_path / "tokens.toml", new_token()
    record = TokenRecord(principal="ann", roles=["sre"], sha256=hash_token(token))
    file = token_file(path, record)
    assert file.authenticate(f"Bearer {token}") is not None
    new = tmp_path / "new"
    new.write_text(render_tokens([]))
    new.chmod(0o600)
    new.replace(path)
    assert file.authenticate(f"Bearer {token}") is None
    path.write_text(render_tokens([record]))
    assert file.authenticate(f"Bearer {token}") is not None


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_may_write_lets_nobody_in(tmp_path: Path, mode: int) -> None:
    file = token_file(tmp_path / "tokens.toml", mode=mode)
    with pytest.raises(TokensError, match="written by others"):
        file.authenticate("Bearer x")


def test_a_file_that_cannot_be_read_lets_nobody_in(tmp_path: Path) -> None:
    path = tmp_path / "tokens.toml"
    file = TokenFile(path, clock=lambda: NOW)
    with pytest.raises(TokensError, match="cannot be read"):
        file.authenticate("Bearer x")
    for content in (b"tokens = 3", b"[[tokens", b"\xff", b"# " + b"x" * 1_100_000):
        path.write_bytes(content)
        path.chmod(0o600)
        with pytest.raises(TokensError):
            file.authenticate("Bearer x")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('[[tokens]]\nprincipal = "a"\nroles = ["auditor"]\nsha256 = "00"', "sha256"),
        ('[[tokens]]\nprincipal = "a"\nroles = ["root"]\nsha256 = "{0}"', "roles"),
        ('[[tokens]]\nprincipal = "a"\nroles = []\nsha256 = "{0}"', "roles"),
        ('[[tokens]]\nprincipal = "a b"\nroles = ["sre"]\nsha256 = "{0}"', "principal"),
        ('[[tokens]]\nprincipal = "anonymous"\nroles = ["sre"]\nsha256 = "{0}"', "without a token"),
        ('[[tokens]]\nprincipal = "a"\nroles = ["sre"]\nsha256 = "{0}"\nexpires = "soon"', "expires"),
        ('[[tokens]]\nprincipal = "a"\nroles = ["sre"]\nsha256 = "{0}"\npassword = "x"', "password"),
        ('[[tokens]]\nprincipal = "a"\nroles = ["sre"]\nsha256 = "{0}"\n' * 2, "same token"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(text: str, said: str) -> None:
    digest = hash_token("x")
    with pytest.raises(TokensError, match=said) as found:
        parse_tokens(text.replace("{0}", digest))
    assert digest not in str(found.value)


@given(
    st.lists(
        st.builds(
            TokenRecord,
            principal=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,20}", fullmatch=True).filter(
                lambda n: n != "anonymous"
            ),
            roles=st.lists(st.sampled_from(["auditor", "sre", "admin"]), min_size=1, max_size=3),
            sha256=st.binary(min_size=32, max_size=32).map(bytes.hex),
            created=st.sampled_from(["", "2026-01-01T00:00:00Z"]),
            note=st.text(st.characters(exclude_categories=["Cs"])),
        ),
        max_size=4,
        unique_by=lambda record: record.sha256,
    )
)
def test_what_is_written_is_read_again(records: list[TokenRecord]) -> None:
    assert parse_tokens(render_tokens(records)) == records


@given(st.text())
def test_the_parser_raises_only_its_own_error(text: str) -> None:
    try:
        parse_tokens(text)
    except TokensError:
        pass
