"""The agent's metrics, read from its state at each scrape; keeps no numbers itself."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent.cni.part import CniPart
from agent.cri.follow import RuntimeFollower
from agent.datapath.audit import LostPart
from agent.direct.off import Off
from agent.direct.path import DirectPath
from agent.enrol.plan import PodState
from agent.status import Agent
from control.kit.metrics import refused_requests


def registry_of(agent: Agent) -> CollectorRegistry:
    """A registry for one page."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(AgentCollector(agent))
    return registry


class AgentCollector(Collector):
    """The agent as a Prometheus collector."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def collect(self) -> Iterator[Metric]:
        return families(self._agent)


def gauges(name: str, help_text: str, label: str, samples: Mapping[str, float]) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for value, number in samples.items():
        family.add_metric([value], number)
    return family


def counters(name: str, help_text: str, label: str, samples: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, help_text, labels=[label])
    for value, number in samples.items():
        family.add_metric([value], number)
    return family


def _gauge(name: str, help_text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, help_text, value=value)


def _counter(name: str, help_text: str, value: float) -> Metric:
    return CounterMetricFamily(name, help_text, value=value)


def families(agent: Agent) -> Iterator[Metric]:
    counted = Counter(state for _, state, _ in agent.pod_states())
    yield gauges(
        "tulle_agent_pods",
        "Pods of this node, by state",
        "state",
        {state.value: counted[state] for state in PodState},
    )
    ztunnels = len(agent.enroller.facts.ztunnels)
    yield _gauge("tulle_agent_ztunnels", "Connected ztunnels", ztunnels)
    connected = agent.intents.connection.connected
    yield _gauge(
        "tulle_agent_control_connected", "1 while the stream of intents is open", int(connected)
    )
    age_s = agent.intents_age_s()
    if age_s is not None:
        yield _gauge(
            "tulle_agent_intents_age_seconds",
            "Age of the last update from the control plane; 0 while connected",
            age_s,
        )
    yield from _kernel(agent)
    yield from _kubelet(agent)
    yield from _direct(agent)
    yield from _enrolments(agent)
    yield from _compared(agent)
    if agent.runtime is not None:
        yield from _runtime(agent.runtime)
    if agent.cni is not None:
        yield from _cni(agent.cni)
    yield refused_requests("tulle_agent_http_refused")


def _kernel(agent: Agent) -> Iterator[Metric]:
    usages = agent.datapath.usage()
    used = {usage.name: float(usage.used) for usage in usages}
    limit = {usage.name: float(usage.max) for usage in usages}
    yield gauges("tulle_agent_map_used", "Entries in use in a kernel map", "map", used)
    yield gauges("tulle_agent_map_max", "Capacity of a kernel map", "map", limit)
    drops = {usage.name: float(usage.drops) for usage in usages}
    yield counters(
        "tulle_agent_map_drops_total",
        "Records that a kernel map or ring had no room for",
        "map",
        drops,
    )
    events = {name: float(count) for name, count in agent.datapath.counters().items()}
    yield counters(
        "tulle_agent_kernel_events_total", "Events counted by the kernel programs", "event", events
    )
    tunnel = events["captured_v4"] + events["captured_v6"]
    yield counters(
        "tulle_agent_connections_total",
        "Connections of this node's pods, by path",
        "path",
        {"tunnel": tunnel, "direct": events["direct_chosen"]},
    )


def _kubelet(agent: Agent) -> Iterator[Metric]:
    yield _gauge(
        "tulle_agent_kubelet_recognised",
        "1 while the kubelet's probes are recognised by its sockets",
        int(agent.kubelet.sight.kubelet is not None),
    )
    yield _counter(
        "tulle_agent_kubelet_attachments_total",
        "Kubelets found since the agent's start: restarts, and moves to another cgroup",
        agent.kubelet.attachments,
    )


def _direct(agent: Agent) -> Iterator[Metric]:
    """Metrics of the direct path; a single one where it is off."""
    direct = agent.direct
    is_on = bool(direct.status()["on"])
    yield _gauge(
        "tulle_agent_direct_on", "1 while the kernel may carry connections itself", int(is_on)
    )
    if not isinstance(direct, Off):
        yield from _ledger(direct)
        yield from _flows(direct)


def _ledger(direct: DirectPath) -> Iterator[Metric]:
    """Lines of ztunnels, and the writes to the kernel that came of them."""
    counts = direct.ledger.counts
    yield _counter(
        "tulle_agent_direct_verdicts_total", "Verdicts written to the kernel", counts.verdicts
    )
    yield _counter(
        "tulle_agent_direct_services_total", "Services written to the kernel", counts.services
    )
    yield _counter(
        "tulle_agent_direct_generations_total", "Times that all verdicts were voided", counts.bumps
    )
    ignored = {reason: float(count) for reason, count in counts.ignored.items()}
    yield counters(
        "tulle_agent_direct_ignored_total",
        "Lines of ztunnels that had no effect, by reason",
        "reason",
        ignored,
    )
    yield _counter(
        "tulle_agent_direct_kernel_refusals_total",
        "Changes to the tables of the direct path that the kernel refused",
        direct.kernel_refusals,
    )
    yield counters(
        "tulle_agent_direct_ztunnels_ended_total",
        "Ztunnels disconnected from direct.sock, by reason",
        "reason",
        {reason: float(count) for reason, count in direct.dismissed.items()},
    )


def _flows(direct: DirectPath) -> Iterator[Metric]:
    flows = direct.flows.counts
    yield _gauge("tulle_agent_direct_flows", "Open direct connections", len(direct.flows))
    yield counters(
        "tulle_agent_direct_flows_total",
        "Direct connections, by event",
        "event",
        {
            "opened": flows.opened,
            "closed": flows.closed,
            "failed": flows.failed,
            "unlisted": flows.unlisted,
            "unknown": flows.unknown,
            "lost": flows.lost,
        },
    )
    cuts = direct.cuts.counts
    outcomes = {"cut": cuts.destroyed, "over": cuts.over, "failed": cuts.failed}
    yield counters(
        "tulle_agent_direct_cuts_total",
        "Direct connections to be ended, by outcome",
        "outcome",
        outcomes,
    )


def _compared(agent: Agent) -> Iterator[Metric]:
    compared = agent.enroller.compared
    yield counters(
        "tulle_agent_kernel_differences_total",
        "Parts of a capture that the kernel had lost, by kind; they are put back",
        "kind",
        {kind.value: compared.counts[kind] for kind in LostPart},
    )
    yield _gauge(
        "tulle_agent_kernel_differences_standing",
        "Differences that the last comparison found again",
        len(compared.standing),
    )
    if compared.at is not None:
        yield _gauge(
            "tulle_agent_kernel_compared_age_seconds",
            "Age of the last comparison of belief and kernel",
            agent.clock.monotonic_s() - compared.at_s,
        )


def _runtime(runtime: RuntimeFollower) -> Iterator[Metric]:
    link = runtime.link
    yield _gauge(
        "tulle_agent_runtime_connected",
        "1 while the container runtime answers",
        int(link.connected),
    )
    yield _gauge("tulle_agent_runtime_sandboxes", "Ready pod sandboxes", link.sandboxes)
    yield counters(
        "tulle_agent_runtime_pods_total",
        "Pods that no CNI plugin told about, by what was done",
        "action",
        {"registered": link.registered, "released": link.released},
    )


def _cni(cni: CniPart) -> Iterator[Metric]:
    yield _gauge(
        "tulle_agent_cni_kept",
        "1 while our configuration is the one that the runtime takes",
        int(cni.keeper.is_kept),
    )
    calls = CounterMetricFamily(
        "tulle_agent_cni_calls_total", "Calls of the plugin", labels=["command", "outcome"]
    )
    for (command, outcome), count in cni.calls().items():
        calls.add_metric([command, outcome], count)
    yield calls


def _enrolments(agent: Agent) -> Iterator[Metric]:
    stats = agent.enroller.facts.stats
    yield _counter(
        "tulle_agent_enrolments_total",
        "Pods captured for the first time",
        stats.enrolments,
    )
    yield _counter(
        "tulle_agent_enrolment_seconds_total",
        "Sum of the times from a pod's intent to its capture",
        stats.enrolment_s_sum,
    )
    yield counters(
        "tulle_agent_enrolment_failures_total",
        "Failed steps, by reason",
        "reason",
        {reason: float(count) for reason, count in stats.failures.items()},
    )
