"""`helpers.streaming_bulk` of opensearch-py or elasticsearch-py. Run as a program: `bulk_sender.py opensearchpy|elasticsearch HOST:PORT COUNT`.

Prints `{"acked": [numbers]}` for what the answers say was taken. When the connection breaks, or the answer is 429 (come again later) once too often, and
the client gives up, what was not acknowledged is handed to it again, as an application would do it; each document has an `_id`, and `index` and `create` come by turns.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from typing import Any

CHUNK = 100
TOO_MANY_REQUESTS = 429


def action(number: int) -> dict[str, Any]:
    return {
        "_op_type": "create" if number % 2 else "index",
        "_index": "shop",
        "_id": f"id-{number}",
        "_source": {"n": number, "message": f"event {number}"},
    }


def main(package: str, address: str, count: int) -> None:
    module, helpers = importlib.import_module(package), importlib.import_module(f"{package}.helpers")
    kind = module.OpenSearch if package == "opensearchpy" else module.Elasticsearch
    broken = (module.exceptions.ConnectionError, module.exceptions.ConnectionTimeout)
    refused = module.exceptions.TransportError if package == "opensearchpy" else module.exceptions.ApiError
    with kind(f"http://{address}", http_compress=True) as client:
        left = list(range(count))
        while left:
            acked: set[int] = set()
            try:
                for ok, item in helpers.streaming_bulk(client, map(action, left), chunk_size=CHUNK, max_retries=5):
                    (details,) = item.values()
                    assert ok, details
                    acked.add(int(details["_id"].removeprefix("id-")))
                    if len(acked) % CHUNK == 0:
                        print(json.dumps({"acked": sorted(acked)}), flush=True)  # noqa: T201 - this is how it tells the test
            except broken:
                time.sleep(0.05)
            except refused as error:
                if getattr(error, "status_code", None) != TOO_MANY_REQUESTS:
                    raise
                time.sleep(0.2)
            left = [number for number in left if number not in acked]
            print(json.dumps({"acked": sorted(acked)}), flush=True)  # noqa: T201 - this is how it tells the test


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
