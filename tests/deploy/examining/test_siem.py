"""Destinations of the log, looked at: those that are well, away, not who they should be, and not encrypted."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

from deploy.config import parse
from deploy.examining import Chart
from deploy.examining.siem import examine_siem
from deploy.places import Places
from tests.audit_api.siem.test_destinations import server_tls
from tests.servers.certificates import Authority
from tests.servers.kafka import free_ports
from tests.support.charts import outcomes
from tests.support.siems import http_sink, syslog_sink


def examined(folder: Path, *tables: str) -> Chart:
    text = "".join(f"[[siem.destinations]]\n{table}\n" for table in tables)
    config = parse(text, source="", folder=folder)
    return examine_siem(config.siem, Places(folder / "tally-data"), now=dt.datetime.now(dt.UTC))


def test_what_is_well_and_what_is_not(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path / "tls"), Authority(tmp_path / "other")
    (tmp_path / "tally-data" / "siem").mkdir(parents=True)
    (tmp_path / "tally-data" / "siem" / "spoilt.json").write_text("{")
    (nobody,) = free_ports(1)
    with syslog_sink(tls=server_tls(authority)) as desk, http_sink() as web:
        tls = f'kind = "syslog"\nhost = "127.0.0.1"\nport = {desk.address[1]}\nca_file = "%s"\nname = "%s"'
        chart = examined(
            tmp_path,
            tls % (authority.ca, "well"),
            tls % (other.ca, "strange"),
            tls % (authority.ca, "spoilt"),
            f'kind = "http"\nname = "web"\nurl = "http://127.0.0.1:{web.address[1]}/"',
            f'kind = "http"\nname = "token"\nurl = "http://127.0.0.1:{web.address[1]}/"\ntoken_file = "gone"',
            f'kind = "syslog"\nname = "plain"\nhost = "127.0.0.1"\nport = {nobody}\ntls = false',
        )
        assert web.requests == []
    told = {name: [one for one in chart.checks if one.name == name] for name in outcomes(chart)}
    assert {name: [one.outcome for one in checks] for name, checks in told.items()} == {
        "well": ["warning"],  # its certificate is good for a week
        "strange": ["failed"],
        "spoilt": ["failed"],
        "web": ["ok"],
        "token": ["failed"],
        "plain": ["warning", "failed"],
    }
    assert "expires in 7 days" in told["well"][0].found or "expires in 6 days" in told["well"][0].found
    assert "not believed" in told["strange"][0].found
    assert "does not read" in told["spoilt"][0].found
    assert "gone" in told["token"][0].found
    assert "not encrypted" in told["plain"][0].found
    assert "cannot be reached" in told["plain"][1].found
