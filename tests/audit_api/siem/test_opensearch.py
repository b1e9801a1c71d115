"""A real OpenSearch takes the bulk envelope: every record is there once, however often it is sent, and refused ones with less in them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from audit_api.siem.http import HttpSender
from audit_api.siem.settings import HttpSettings
from collector.store.settings import StoreSettings
from tests.servers.opensearch import Cluster
from tests.support.ledgers import SmallLedger
from tests.support.siems import records_of

pytestmark = [pytest.mark.opensearch, pytest.mark.timeout(400)]


def test_bulk(opensearch: Cluster, opensearch_settings: StoreSettings, difficult: SmallLedger) -> None:
    index = f"{opensearch_settings.prefix}-siem"
    flat = {"type": "flat_object"}
    properties: dict[str, Any] = {
        "tallystick": {"properties": {"attributes": flat, "resource": flat}},
        "labels": flat,
        "message": {"type": "date", "ignore_malformed": False},  # what nobody would do: so that something is refused
    }
    opensearch.ask("PUT", f"/{index}", {"mappings": {"properties": properties}})
    settings = HttpSettings(name="os", url=f"{opensearch.urls[0]}/{index}/_bulk", envelope="bulk", format="ecs")
    sender = HttpSender(settings, tls=None, token=lambda: "", clock=lambda: 0)
    records = [one for one in records_of(difficult, "ecs") if one.row.entry.kind == "event"]
    sender.send(records)
    sender.send(records)
    sender.close()
    opensearch.ask("POST", f"/{index}/_refresh")
    found = opensearch.ask("POST", f"/{index}/_search", {"size": 1_000, "sort": ["tallystick.leaf"]})
    hits = found["hits"]["hits"]
    assert [one["_id"] for one in hits] == [one.mark.id for one in records]
    cut = [one["_source"]["tallystick"]["cut"]["why"] for one in hits if "cut" in one["_source"]["tallystick"]]
    with_text = [one for one in records if "message" in json.loads(one.data)]
    assert cut == ["refused"] * len(with_text)
    assert 0 < len(cut) < len(hits)
