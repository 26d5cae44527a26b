"""The control plane's own metrics, one registry per process."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from control.kit.metrics import RefusalCollector
from control.kube.reflection import Reflection
from control.server.sources.problem import Problem

_TYPES = (
    *("Address", "Authorization", "Pod", "Namespace"),
    *("Cluster", "ClusterLoadAssignment", "Listener", "ScopedRouteConfiguration"),
    "RouteConfiguration",
)
_PUSH_BUCKETS_S = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


class Metrics:
    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        r = self.registry
        self.pushes = Counter("tulle_control_pushes", "xDS responses sent", ["type"], registry=r)
        self.push_bytes = Counter(
            "tulle_control_push_bytes", "Bytes of xDS responses sent", ["type"], registry=r
        )
        self.compile_s = Histogram(
            "tulle_control_compile_duration_seconds",
            "Time from objects to encoded resources",
            buckets=_PUSH_BUCKETS_S,
            registry=r,
        )
        self.push_s = Histogram(
            "tulle_control_push_duration_seconds",
            "Time to write one xDS response to a client",
            buckets=_PUSH_BUCKETS_S,
            registry=r,
        )
        self.connected = Gauge("tulle_control_connected", "Open xDS streams", ["kind"], registry=r)
        self.connections = Gauge(
            "tulle_control_connections",
            "Open connections, with and without a token shown",
            ["state"],
            registry=r,
        )
        self.nacks = Counter(
            "tulle_control_nacks", "Responses that a client rejected", ["type"], registry=r
        )
        self.refused = Counter(
            "tulle_control_refused",
            "Connections and other calls refused",
            ["method", "reason"],
            registry=r,
        )
        self.csr = Counter(
            "tulle_control_csr", "Certificate requests", ["result", "reason"], registry=r
        )
        self.token_reviews = Counter(
            "tulle_control_token_reviews",
            "Questions to the API server about tokens",
            ["result"],
            registry=r,
        )
        self.leads = Gauge(
            "tulle_control_leads", "1 while this replica writes to the API server", registry=r
        )
        self.writes = Counter(
            "tulle_control_writes",
            "Objects that the leader wrote to the API server",
            ["kind", "result"],
            registry=r,
        )
        self.objects = Gauge("tulle_control_objects", "Objects in force", ["kind"], registry=r)
        self._source_age = Gauge(
            "tulle_control_source_age_seconds",
            "Time since the objects in force were last known to be the source's; 0 while they are",
            registry=r,
        )
        self.resources = Gauge("tulle_control_resources", "Resources served", ["type"], registry=r)
        self.problems = Gauge(
            "tulle_control_problems", "Problems in the manifests", ["reason"], registry=r
        )
        r.register(RefusalCollector("tulle_control_http_refused"))
        self.root_expiry = Gauge(
            "tulle_control_root_expiry_timestamp_seconds",
            "End of the root certificate's validity",
            registry=r,
        )

    def follow(self, states: Mapping[str, Reflection]) -> None:
        """Show how the kinds of an API server are followed."""
        self.registry.register(WatchCollector(states))

    def show_age(self, age_s: Callable[[], float]) -> None:
        """Show how old the objects in force are."""
        self._source_age.set_function(age_s)

    def show_objects(self, counts: Mapping[str, int]) -> None:
        for kind, count in counts.items():
            self.objects.labels(kind).set(count)

    def show_problems(self, problems: Iterable[Problem]) -> None:
        self.problems.clear()  # a reason that is gone must not stay at its last value
        for reason, count in Tally(each.reason for each in problems).items():
            self.problems.labels(reason).set(count)


class WatchCollector(Collector):
    """One series for each kind, as it is when the page is asked for."""

    def __init__(self, states: Mapping[str, Reflection]) -> None:
        self._states = states

    def collect(self) -> Iterator[Metric]:
        followed = GaugeMetricFamily(
            "tulle_control_kube_followed",
            "1 while objects of a kind are up to date",
            labels=["kind"],
        )
        failures = CounterMetricFamily(
            "tulle_control_kube_failures", "Requests to the API server that failed", labels=["kind"]
        )
        lists = CounterMetricFamily(
            "tulle_control_kube_lists", "Complete lists from the API server", labels=["kind"]
        )
        for kind, state in self._states.items():
            is_up = state.is_synced and state.trouble is None
            followed.add_metric([kind], float(is_up))
            failures.add_metric([kind], state.failures_total)
            lists.add_metric([kind], state.passes)
        yield from (followed, failures, lists)


def short_type(type_url: str) -> str:
    """`type.googleapis.com/istio.workload.Address` → `Address`; foreign ones share one label."""
    name = type_url.rpartition(".")[2]
    return name if name in _TYPES else "other"
