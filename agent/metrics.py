"""The agent's metrics, read from its state at the moment of the scrape; keeps no numbers itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from agent.enrol.plan import State
from agent.status import Node

_COUNT = "How many pods of this node are in this state"


class AgentCollector(Collector):
    def __init__(self, node: Node) -> None:
        self._node = node

    def collect(self) -> Iterable[Metric]:
        yield from self._pods()
        yield from self._control()
        yield from self._kernel()
        yield from self._enrolments()

    def _pods(self) -> Iterable[Metric]:
        pods = GaugeMetricFamily("tulle_agent_pods", _COUNT, labels=["state"])
        counted = Counter(state for _, state, _ in self._node.pod_states())
        for state in State:
            pods.add_metric([state.value], counted[state])
        yield pods
        tunnels = len(self._node.enroller.tunnels)
        yield GaugeMetricFamily("tulle_agent_ztunnels", "Connected ztunnels", value=tunnels)

    def _control(self) -> Iterable[Metric]:
        connected = self._node.intents.connection.connected
        yield GaugeMetricFamily(
            "tulle_agent_control_connected", "1 while intents are streamed", value=float(connected)
        )
        age_s = self._node.intents_age_s()
        if age_s is not None:
            yield GaugeMetricFamily(
                "tulle_agent_intents_age_seconds",
                "How old what we know of the control plane's wishes may be",
                value=age_s,
            )

    def _kernel(self) -> Iterable[Metric]:
        used = GaugeMetricFamily("tulle_agent_map_used", "Entries of a kernel map", labels=["map"])
        limit = GaugeMetricFamily("tulle_agent_map_max", "Size of a kernel map", labels=["map"])
        for usage in self._node.datapath.usage():
            used.add_metric([usage.name], usage.used)
            limit.add_metric([usage.name], usage.max)
        yield used
        yield limit
        events = CounterMetricFamily(
            "tulle_agent_kernel_events", "What the kernel programs counted", labels=["event"]
        )
        for name, value in self._node.datapath.counters().items():
            events.add_metric([name], value)
        yield events

    def _enrolments(self) -> Iterable[Metric]:
        stats = self._node.enroller.stats
        yield CounterMetricFamily(
            "tulle_agent_enrolments", "Pods captured for the first time", value=stats.enrolments
        )
        yield CounterMetricFamily(
            "tulle_agent_enrolment_seconds",
            "Time from knowing that a pod belongs in the mesh to its capture, summed",
            value=stats.enrolment_s_sum,
        )
        failures = CounterMetricFamily(
            "tulle_agent_enrolment_failures", "Steps that failed, by reason", labels=["reason"]
        )
        for reason, value in stats.failures.items():
            failures.add_metric([reason], value)
        yield failures


def registry_for(node: Node) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(AgentCollector(node))
    return registry
