"""`tally map`: what each line would become, and what it says where something does not fit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

from tests.deploy.conftest import Cli

LINES = (
    '203.0.113.7 - ann [10/Oct/2026:13:55:36 +0200] "GET /pay?card=4111111111111111 HTTP/1.1" 502 2326 "-" "curl" "req-1"\n'
    '{"request_method":"GET","request_uri":"/p","status":"2x4","request_time":"0.012","payment_id":"p1","request_id":"r"}\n'
    "\n"
    "something else\n"
    '{"broken":\n'
)


def test_each_line_is_told_with_its_trail_and_what_does_not_fit(workshop: object, cli: Cli, tmp_path: Path) -> None:
    del workshop  # it brings the configuration: payment_id is the transaction
    file = tmp_path / "access.log"
    file.write_text(LINES)
    code, out, _ = cli("map", str(file), "--mapping", "preset:nginx", "--json")
    assert code == 1  # not every line is mapped
    first, second, third, fourth = json.loads(out)
    assert (first["mapping"], first["trail"], first["why"]) == (
        "nginx-combined",
        "key/request_id/req-1",
        "key request_id: stated",
    )
    assert "4111111111111111" not in out
    assert first["event"]["marks"] == ["card:attributes.url.query", "card:body", "mapped:nginx-combined"]
    assert (second["trail"], second["unmapped"]) == ("transaction/p1", ["attributes.http.response.status_code"])
    assert (third["line"], third["mapping"], third["event"]["body"]) == (4, "", "something else")
    assert fourth["refused"] == "column 11: not JSON"
    code, out, _ = cli("map", str(file), "--mapping", "preset:nginx")
    assert code == 1
    assert "line 2: mapping nginx-json, does not fit: attributes.http.response.status_code" in out
    assert "  → transaction/p1  (transaction: attributes.payment_id)" in out
    assert "4 lines: none 2, nginx-combined 1, nginx-json 1" in out


def test_what_is_mapped_whole_is_exit_code_0_also_of_a_compressed_file(
    workshop: object, cli: Cli, tmp_path: Path
) -> None:
    del workshop
    file = tmp_path / "access.log.gz"
    file.write_bytes(gzip.compress(LINES.encode()))
    assert cli("map", str(file), "--mapping", "preset:nginx", "--limit", "1")[0] == 0
    file.write_bytes(gzip.compress(LINES.encode())[:-20])
    assert cli("map", str(file), "--mapping", "preset:nginx")[0] == 2


def test_what_cannot_be_used_is_said_and_exit_code_2(workshop: object, cli: Cli, tmp_path: Path) -> None:
    del workshop
    file, mapping = tmp_path / "a.log", tmp_path / "m.toml"
    file.write_text("x\n")
    assert "no mapping: give --mapping" in cli("map", str(file))[2]
    mapping.write_text("[[mapping]]\nname = 'm'\ntake = { nowhere = 'a' }\n")
    code, _, err = cli("map", str(file), "--mapping", str(mapping))
    assert (code, "mapping 'm': there is no place 'nowhere'" in err) == (2, True)
    code, _, err = cli("map", str(file), "--mapping", "none.toml")
    assert (code, err.strip().splitlines()[-1]) == (2, "tally: none.toml: No such file or directory")
