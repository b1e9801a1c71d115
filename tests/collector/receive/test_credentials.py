"""Credentials of a file against the headers that clients send."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import Malformed
from collector.receive.credentials import Credentials

FILE = """
# shippers
Basic shipper:a secret: with colons
ApiKey an-id:a-key
  bearer tok.en==
"""


def encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_the_three_schemes(tmp_path: Path) -> None:
    path = tmp_path / "credentials"
    path.write_text(FILE, encoding="utf-8")
    known = Credentials.read(path)
    assert known.allow("Basic " + encoded("shipper:a secret: with colons"))
    assert known.allow("basic  " + encoded("shipper:a secret: with colons"))
    assert known.allow("ApiKey " + encoded("an-id:a-key"))
    assert known.allow("Bearer tok.en==")


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Basic",
        "Basic shipper:a secret: with colons",
        "Basic " + encoded("shipper:a secret"),
        "ApiKey " + encoded("shipper:a secret: with colons"),
        "Bearer tok.en",
        "Bearer tok.en==" + " " * 5_000 + "x",
        "Digest tok.en==",
    ],
)
def test_everything_else_is_none(header: str) -> None:
    assert not Credentials(FILE).allow(header)


@given(st.text())
def test_no_header_breaks_it(header: str) -> None:
    assert not Credentials(FILE).allow(header)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "no credentials in the file"),
        ("# nobody", "no credentials in the file"),
        ("Basic user:x\nBasic user", "line 2: a line is"),
        ("Digest a:b", "line 1: a line is"),
        ("Bearer", "line 1: a line is"),
    ],
)
def test_a_file_that_says_nothing_is_refused(text: str, reason: str) -> None:
    with pytest.raises(Malformed, match=reason):
        Credentials(text)
