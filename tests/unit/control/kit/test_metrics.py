"""Metrics pages: the format that the scraper asks for, packed when it pays."""

from __future__ import annotations

import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter

from control.kit.metrics import GZIP_BYTES_MIN, render

OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


def registry(help_text: str = "Requests") -> CollectorRegistry:
    made = CollectorRegistry()
    Counter("requests", help_text, registry=made).inc()
    return made


@pytest.mark.parametrize(
    ("accept", "kind", "ends_with_eof"),
    [("", "text/plain", False), ("*/*", "text/plain", False), (OPEN_METRICS, OPEN_METRICS, True)],
)
def test_the_format_is_the_one_asked_for(accept: str, kind: str, ends_with_eof: bool) -> None:
    headers, body = render(registry(), {"accept": accept})
    assert headers["content-type"].startswith(kind)
    assert b"requests_total 1.0\n" in body
    assert body.endswith(b"# EOF\n") is ends_with_eof


def test_a_page_of_one_packet_is_not_packed() -> None:
    headers, body = render(registry(), {"accept-encoding": "gzip"})
    assert len(body) < GZIP_BYTES_MIN
    assert "content-encoding" not in headers


@pytest.mark.parametrize(("encodings", "is_packed"), [("gzip, deflate", True), ("br", False)])
def test_a_large_page_is_packed_for_those_who_can_unpack_it(
    encodings: str, is_packed: bool
) -> None:
    large = registry("long " * GZIP_BYTES_MIN)
    headers, body = render(large, {"accept-encoding": encodings})
    assert (headers.get("content-encoding") == "gzip") is is_packed
    plain = gzip.decompress(body) if is_packed else body
    assert plain == render(large, {})[1]
    assert headers["vary"] == "accept, accept-encoding", "a cache must not mix them up"
