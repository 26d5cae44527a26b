"""Metrics page, by Prometheus' client: loaded when somebody asks for it, not at the start."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.kit.metrics import SharedPage
from ztunnel.supervisor.metrics import HELP, Sample


class SampleCollector(Collector):
    """Samples as Prometheus' client reads them."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for sample in self._samples:
            metric = families.get(sample.name)
            if metric is None:
                family_name = sample.name.removesuffix("_total")
                kind = "counter" if family_name != sample.name else "gauge"
                metric = Metric(family_name, HELP.get(sample.name, family_name), kind)
                families[sample.name] = metric
            metric.add_sample(sample.name, sample.labels, sample.value)
        yield from families.values()


def registry_of(samples: Iterable[Sample]) -> CollectorRegistry:
    """A registry for one page: these samples and the process's own figures."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SampleCollector(tuple(samples)))
    ProcessCollector(registry=registry)
    return registry


def shared_page(samples: Callable[[], Awaitable[Iterable[Sample]]]) -> SharedPage:
    async def registry() -> CollectorRegistry:
        return registry_of(await samples())

    return SharedPage(registry)
