"""One metrics page: Envoy's figures and ours.

Envoy puts `envoy_` before every name. Those of requests have Istio's names, for which boards exist,
so they lose it. The page has a bound; beyond it the rest is left out, and a figure says so.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.kit.log import event
from control.kit.metrics import render
from ztunnel.waypoint.envoy_admin import EnvoyAdmin, EnvoySilent

log = logging.getLogger("metrics")

PAGE_BYTES_MAX = 32 * 1024 * 1024
FRESH_S = 1.0  # who asks sooner gets the same page
STATS = "/stats/prometheus?usedonly"
_ISTIO = re.compile(rb"(?m)^(# (?:TYPE|HELP) |)envoy_(?=istio_)")

Sample = tuple[str, str, float, dict[str, str]]  # name, meaning, value, labels


class EnvoyPage:
    """Envoy's page as it comes, in whole lines, without the prefix of Istio's names."""

    def __init__(self, bytes_max: int = PAGE_BYTES_MAX) -> None:
        self.is_cut = False
        self._bytes_max = bytes_max
        self._rest = b""
        self._lines: list[bytes] = []
        self._size = 0

    def take(self, piece: bytes) -> bool:
        """False: it has enough."""
        whole, newline, self._rest = (self._rest + piece).rpartition(b"\n")
        lines = _ISTIO.sub(rb"\1", whole + newline)
        if self._size + len(lines) + len(self._rest) > self._bytes_max:
            self.is_cut = True
            return False
        self._lines.append(lines)
        self._size += len(lines)
        return True

    @property
    def body(self) -> bytes:
        return b"".join(self._lines)


class MetricsPage:
    """Made at most once in FRESH_S, whoever asks."""

    def __init__(
        self,
        envoy: EnvoyAdmin,
        samples: Callable[[], Iterator[Sample]],
        now_s: Callable[[], float],
    ) -> None:
        self._envoy = envoy
        self._samples = samples
        self._now_s = now_s
        self._making = asyncio.Lock()
        self._made: tuple[dict[str, str], bytes] | None = None
        self._made_s = 0.0

    async def get(self) -> tuple[dict[str, str], bytes]:
        """Headers and body."""
        async with self._making:
            if self._made is None or self._now_s() - self._made_s >= FRESH_S:
                self._made, self._made_s = await self._make(), self._now_s()
            return self._made

    async def _make(self) -> tuple[dict[str, str], bytes]:
        page = EnvoyPage()
        try:
            await self._envoy.pieces(STATS, page.take)
        except EnvoySilent as exc:
            event(log, logging.WARNING, "metrics.without_envoy", error=exc)
        cut = "Envoy's page was longer than is passed on"
        ours = [*self._samples(), ("tulle_waypoint_metrics_cut", cut, float(page.is_cut), {})]
        headers, body = render(_registry(ours), {})
        return headers, body + page.body


class _Samples(Collector):
    def __init__(self, samples: list[Sample]) -> None:
        self._all = samples

    def collect(self) -> Iterator[Metric]:
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, meaning, value, labels in self._all:
            if name not in families:
                kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
                families[name] = kind(name.removesuffix("_total"), meaning, labels=list(labels))
            families[name].add_metric(list(labels.values()), value)
        yield from families.values()


def _registry(samples: list[Sample]) -> CollectorRegistry:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Samples(samples))
    ProcessCollector(registry=registry)
    return registry
