"""The metrics page: Envoy's lines with Istio's names, ours before them, and a bound."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from ztunnel.waypoint.envoy_admin import EnvoyAdmin, EnvoySilent
from ztunnel.waypoint.metrics import FRESH_S, EnvoyPage, MetricsPage, Sample

ENVOY = b"""# TYPE envoy_istio_requests_total counter
envoy_istio_requests_total{source_workload="a",x="envoy_istio_y"} 5
# TYPE envoy_server_live gauge
envoy_server_live{} 1
"""
MERGED = b"""# TYPE istio_requests_total counter
istio_requests_total{source_workload="a",x="envoy_istio_y"} 5
# TYPE envoy_server_live gauge
envoy_server_live{} 1
"""


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_istios_names_lose_envoys_prefix_however_the_page_comes(size: int) -> None:
    page = EnvoyPage()
    for start in range(0, len(ENVOY), size):
        assert page.take(ENVOY[start : start + size])
    assert page.body == MERGED
    assert not page.is_cut


def test_a_page_that_is_too_long_ends_with_a_whole_line() -> None:
    page = EnvoyPage(bytes_max=100)
    taken = [page.take(line) for line in (ENVOY[:40], ENVOY[40:120], ENVOY[120:])]
    assert taken == [True, False, False][: len(taken)] or page.is_cut
    assert page.is_cut
    assert page.body == b"" or page.body.endswith(b"\n")


class Envoy(EnvoyAdmin):
    def __init__(self) -> None:
        self.asked = 0
        self.is_there = True

    async def pieces(self, target: str, take: Callable[[bytes], bool]) -> None:
        self.asked += 1
        if not self.is_there:
            raise EnvoySilent("gone")
        take(ENVOY)


def samples() -> Iterator[Sample]:
    yield "tulle_waypoint_x_total", "Help", 2, {"reason": "a"}
    yield "tulle_waypoint_x_total", "Help", 3, {"reason": "b"}


def test_the_page_has_both_and_is_made_once_in_a_while() -> None:
    envoy, now = Envoy(), [0.0]
    page = MetricsPage(envoy, samples, lambda: now[0])

    async def asked() -> str:
        return (await page.get())[1].decode()

    text = asyncio.run(asked())
    assert text.endswith(MERGED.decode())
    assert 'tulle_waypoint_x_total{reason="b"} 3.0' in text
    assert "tulle_waypoint_metrics_cut 0.0" in text
    asyncio.run(asked())
    assert envoy.asked == 1
    now[0], envoy.is_there = FRESH_S, False
    assert "istio_requests_total" not in (text := asyncio.run(asked()))
    assert "tulle_waypoint_x_total" in text, "ours are there without Envoy"
