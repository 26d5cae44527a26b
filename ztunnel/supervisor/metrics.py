"""The metrics page: what the workers count, added up, and what the supervisor knows itself.

Workers are asked at scrape time and, so that a crash loses little, every few seconds between. The
counters of a dead worker stay in the sum: a counter that goes back would look like a restart.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.kit.log import event

log = logging.getLogger("metrics")

SERIES_MAX = 100_000  # over all workers: what a scraper still takes, far above an honest node

_HELP = {
    "istio_tcp_connections_opened": "TCP connections opened",
    "istio_tcp_connections_closed": "TCP connections closed",
    "istio_tcp_connections_failed": "TCP connections that could not be established",
    "istio_tcp_received_bytes": "Bytes from the client to the server",
    "istio_tcp_sent_bytes": "Bytes from the server to the client",
    "istio_tcp_sockets_open": "TCP connections open now",
    "istio_build": "What this process is",
    "istio_xds_connection_terminations": "Ended streams to the control plane, by reason",
    "istio_xds_message": "Messages from the control plane, by type",
    "istio_xds_message_bytes": "Bytes of messages from the control plane, by type",
    "workload_manager_active_proxy_count": "Pods served",
    "workload_manager_pending_proxy_count": "Pods whose workload the control plane does not know",
    "workload_manager_proxies_started": "Pods taken into service",
    "workload_manager_proxies_stopped": "Pods taken out of service",
    "tulle_ztunnel_worker_restarts": "Worker processes that had to be replaced",
    "tulle_ztunnel_workers_ready": "Worker processes that are up",
    "tulle_ztunnel_direct_connected": "1 while the agent hears what the kernel may carry itself",
    "tulle_ztunnel_direct_generations": "Times everything the kernel had been told became stale",
    "tulle_ztunnel_direct_lines": "Lines exchanged with the agent, by kind",
    "tulle_ztunnel_direct_flows": "Connections open now that the kernel carries",
    "tulle_ztunnel_direct_services": "Shares of services offered to the kernel, in force",
    "tulle_ztunnel_refusals": "Connections refused, by reason",
    "tulle_ztunnel_would_deny": "Connections a dry-run policy would have refused",
    "tulle_ztunnel_unknown_policies": "Times a workload named a policy that has not arrived",
}

Labels = tuple[tuple[str, str], ...]
Table = dict[tuple[str, Labels], float]


@dataclass(frozen=True, slots=True)
class Sample:
    """One number. A counter's name ends in `_total`, a gauge's does not."""

    name: str
    value: float
    labels: dict[str, str] = field(default_factory=dict)


class Tally:
    """Sums over workers, alive and dead."""

    def __init__(self) -> None:
        self._last: dict[int, tuple[Table, Table]] = {}
        self._retired: Table = {}

    def heard(self, worker: int, answer: dict[str, Any]) -> None:
        """Take over a worker's answer; nonsense from a worker is dropped, and said."""
        try:
            counters, gauges = _table(answer["counters"]), _table(answer["gauges"])
        except (KeyError, TypeError, ValueError, AttributeError) as exc:
            event(log, logging.ERROR, "metrics.unreadable", worker=worker, error=repr(exc))
            return
        self._last[worker] = (counters, gauges)

    def worker_lost(self, worker: int) -> None:
        counters, _ = self._last.pop(worker, ({}, {}))
        _add(self._retired, counters)

    def samples(self) -> Iterator[Sample]:
        counters: Table = dict(self._retired)
        gauges: Table = {}
        for its_counters, its_gauges in self._last.values():
            _add(counters, its_counters)
            _add(gauges, its_gauges)
        for table in (counters, gauges):
            for (name, labels), value in table.items():
                yield Sample(name, value, dict(labels))


def _table(rows: Iterable[tuple[str, dict[str, str], float]]) -> Table:
    table: Table = {}
    for name, labels, value in rows:
        if len(table) >= SERIES_MAX:
            raise ValueError("too many series")
        key = (str(name), tuple(sorted((str(k), str(v)) for k, v in labels.items())))
        table[key] = table.get(key, 0.0) + float(value)
    return table


def _add(into: Table, other: Table) -> None:
    for key, value in other.items():
        if key in into or len(into) < SERIES_MAX:
            into[key] = into.get(key, 0.0) + value


class SampleCollector(Collector):
    """Prometheus' view of a list of samples."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for sample in self._samples:
            family_name = sample.name.removesuffix("_total")
            metric = families.get(family_name)
            if metric is None:
                kind = "counter" if family_name != sample.name else "gauge"
                metric = Metric(family_name, _HELP.get(family_name, family_name), kind)
                families[family_name] = metric
            metric.add_sample(sample.name, sample.labels, sample.value)
        yield from families.values()


def registry_of(samples: Iterable[Sample]) -> CollectorRegistry:
    """A registry for one page: these samples and the process's own figures."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(SampleCollector(tuple(samples)))
    ProcessCollector(registry=registry)
    return registry
