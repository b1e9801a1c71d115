"""Posting to whoever is told or asked: in time, whatever they do."""

from __future__ import annotations

import ssl
from pathlib import Path

from alerting.detect.post import Poster
from tests.servers.certificates import Authority
from tests.support.siems import http_sink
from tests.support.webhooks import dribbler, receiver


def test_who_sends_a_byte_now_and_then_is_not_waited_for() -> None:
    with dribbler(seconds=0.05, bytes_=200) as url:
        assert Poster(ca_file="", where="x", seconds=0.2).post(url, b"{}", {}) is None


def test_who_is_slow_and_in_time_is_heard() -> None:
    with dribbler(seconds=0.001, bytes_=20) as url:
        assert Poster(ca_file="", where="x", seconds=10.0).post(url, b"{}", {}) == 200


def test_one_poster_posts_again_and_again() -> None:
    poster = Poster(ca_file="", where="x")
    with receiver(200, 404, 302, 200) as (url, got):
        assert [poster.post(url, b"{}", {}) for _ in range(4)] == [200, 404, 302, 200]
    assert len(got) == 4, "no redirect was followed"


def test_it_posts_over_tls_to_whom_it_trusts_alone(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    served.load_cert_chain(*authority.issue("receiver"))
    with http_sink(tls=served) as sink:
        sink.answers += [(201, {}, b"taken"), (500, {}, b"no")]
        url = "https://{}:{}/x".format(*sink.address)
        trusting = Poster(ca_file=str(authority.ca), where="x")
        assert [trusting.post(url, b"{}", {}) for _ in range(2)] == [201, 500]
        assert Poster(ca_file="", where="x").post(url, b"{}", {}) is None
    assert len(sink.requests) == 2
