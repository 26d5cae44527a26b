"""Metrics pages for Prometheus: classic text or OpenMetrics, by the Accept header."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.kit.page_refusals import refusals

_OPEN_METRICS = "application/openmetrics-text; version=1.0.0"
GZIP_BYTES_MIN = 1400  # below one packet, compression costs more than it saves

# Making the page takes at most a tenth of the time, however often and by how many it is asked for.
MAKING_SHARE = 10


def form_of(headers: dict[str, str]) -> tuple[str, bool]:
    """(a plain Accept header, compressed): one of four, whatever the client writes."""
    accept = _OPEN_METRICS if "application/openmetrics-text" in headers.get("accept", "") else ""
    return accept, "gzip" in headers.get("accept-encoding", "")


def render(registry: CollectorRegistry, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
    """The page and its headers. `headers` are the request's, names in lower case."""
    accept, packed = form_of(headers)
    encoder, content_type = choose_encoder(accept)
    body = encoder(registry)
    answer = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if len(body) >= GZIP_BYTES_MIN and packed:
        answer["content-encoding"] = "gzip"
        body = gzip.compress(body, compresslevel=3)
    return answer, body


class SharedPage:
    """The metrics page of a port: those who ask while it is made share it.

    A page that takes long to make is kept for a moment, so that asking cannot take a process's
    time; one of a small mesh is always fresh.
    """

    def __init__(
        self,
        collect: Callable[[], Awaitable[CollectorRegistry]],
        now_s: Callable[[], float] = time.monotonic,
        used_s: Callable[[], float] = time.process_time,
    ) -> None:
        """`used_s`: time of the processor that this process has used; waiting costs nothing."""
        self._collect = collect
        self._now_s = now_s
        self._used_s = used_s
        self._making: dict[tuple[str, bool], asyncio.Task[tuple[dict[str, str], bytes]]] = {}
        self._fresh_until_s: dict[tuple[str, bool], float] = {}

    async def get(self, headers: dict[str, str]) -> tuple[dict[str, str], bytes]:
        """Headers and body of an answer to a request with these headers."""
        form = form_of(headers)
        made = self._making.get(form)
        if made is None or (made.done() and self._now_s() >= self._fresh_until_s[form]):
            made = asyncio.get_running_loop().create_task(self._make(form, headers))
            self._making[form] = made
        return await asyncio.shield(made)  # one who leaves takes it from nobody

    async def _make(
        self, form: tuple[str, bool], headers: dict[str, str]
    ) -> tuple[dict[str, str], bytes]:
        used_s = self._used_s()
        self._fresh_until_s[form] = self._now_s()
        page = render(await self._collect(), headers)
        cost_s = self._used_s() - used_s
        self._fresh_until_s[form] = self._now_s() + cost_s * MAKING_SHARE
        return page


class RefusalCollector(Collector):
    """The refusals of this process's doors, as Prometheus' client reads them."""

    def __init__(self, name: str) -> None:
        self._name = name

    def collect(self) -> Iterator[Metric]:
        yield refused_requests(self._name)


def refused_requests(name: str) -> CounterMetricFamily:
    """`name`: of the metric, with the process in it, without `_total`."""
    help_text = "Requests and connections that admin, metrics and readiness doors refused"
    family = CounterMetricFamily(name, help_text, labels=["door", "reason"])
    for labels, count in sorted(refusals.counts.items()):
        family.add_metric(labels, count)
    return family
