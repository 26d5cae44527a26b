"""Metrics pages: the format that the scraper asks for, packed when it pays."""

from __future__ import annotations

import asyncio
import gzip

import pytest
from prometheus_client import CollectorRegistry, Counter

from control.kit.metrics import GZIP_BYTES_MIN, SharedPage, render

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


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text; version=nonsense",
        "text/plain; version=9;q=",
        ",;=",
        "x" * 999,
    ],
)
def test_a_client_chooses_one_of_four_forms_whatever_it_writes(accept: str) -> None:
    headers, body = render(registry(), {"accept": accept})
    assert "nonsense" not in headers["content-type"]
    assert b"requests_total 1.0\n" in body


class Collected:
    """Registries that take time to collect, by a clock of ours."""

    def __init__(self) -> None:
        self.now_s, self.takes_s, self.count = 0.0, 0.0, 0

    async def collect(self) -> CollectorRegistry:
        self.count += 1
        await asyncio.sleep(0)
        self.now_s += self.takes_s
        return registry()


def test_those_who_ask_at_once_share_a_page_and_one_who_leaves_takes_it_from_nobody() -> None:
    async def scenario() -> None:
        made = Collected()
        page = SharedPage(made.collect, lambda: made.now_s, lambda: made.now_s)
        asking = [asyncio.get_running_loop().create_task(page.get({})) for _ in range(20)]
        await asyncio.sleep(0)
        asking[0].cancel()
        bodies = {(await each)[1] for each in asking[1:]}
        assert (len(bodies), made.count) == (1, 1)
        await page.get({"accept-encoding": "gzip"})
        assert made.count == 2, "another form"

    asyncio.run(scenario())


def test_a_page_is_fresh_and_a_slow_one_takes_a_tenth_of_the_time() -> None:
    async def scenario() -> None:
        made = Collected()
        page = SharedPage(made.collect, lambda: made.now_s, lambda: made.now_s)
        for _ in range(3):
            await page.get({})
        assert made.count == 3
        made.takes_s = 0.5
        await page.get({})
        for made.now_s, count in ((1.0, 4), (5.4, 4), (5.6, 5)):
            await page.get({})
            assert made.count == count

    asyncio.run(scenario())


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
