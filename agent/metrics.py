"""The agent's metrics, read from its state at the moment of the scrape; keeps no numbers itself.

Prometheus' text format is written here, in a few lines: importing its client library would cost
2.4 MiB of the agent's 45 (it brings a web server), and the agent only has gauges and counters that
live elsewhere. A test reads the page with that library's own parser.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.enrol.plan import State
from agent.status import Node

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Family:
    """One metric; each sample is (value of `label`, number), or ("", number) without a label."""

    name: str
    kind: str  # gauge or counter
    help: str
    samples: tuple[tuple[str, float], ...]
    label: str = ""


def _gauge(name: str, help_text: str, value: float) -> Family:
    return Family(name, "gauge", help_text, (("", value),))


def _labelled(
    name: str, kind: str, help_text: str, label: str, samples: Mapping[str, float]
) -> Family:
    return Family(name, kind, help_text, tuple(samples.items()), label)


def render(families: Iterable[Family]) -> str:
    lines: list[str] = []
    for family in families:
        lines.append(f"# HELP {family.name} {_escaped(family.help)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for value, number in family.samples:
            label = f'{{{family.label}="{_escaped(value)}"}}' if family.label else ""
            lines.append(f"{family.name}{label} {number}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")


def families(node: Node) -> Iterator[Family]:
    counted = Counter(state for _, state, _ in node.pod_states())
    yield _labelled(
        "tulle_agent_pods",
        "gauge",
        "Pods of this node by state",
        "state",
        {state.value: counted[state] for state in State},
    )
    tunnels = len(node.enroller.facts.tunnels)
    yield _gauge("tulle_agent_ztunnels", "Connected ztunnels", tunnels)
    connected = node.intents.connection.connected
    yield _gauge("tulle_agent_control_connected", "1 while intents are streamed", int(connected))
    age_s = node.intents_age_s()
    if age_s is not None:
        yield _gauge(
            "tulle_agent_intents_age_seconds",
            "How old what we know of the control plane's wishes may be",
            age_s,
        )
    yield from _kernel(node)
    yield from _enrolments(node)


def _kernel(node: Node) -> Iterator[Family]:
    usages = node.datapath.usage()
    used = {usage.name: float(usage.used) for usage in usages}
    limit = {usage.name: float(usage.max) for usage in usages}
    yield _labelled("tulle_agent_map_used", "gauge", "Entries of a kernel map", "map", used)
    yield _labelled("tulle_agent_map_max", "gauge", "Size of a kernel map", "map", limit)
    yield _labelled(
        "tulle_agent_kernel_events_total",
        "counter",
        "What the kernel programs counted",
        "event",
        {name: float(count) for name, count in node.datapath.counters().items()},
    )


def _enrolments(node: Node) -> Iterator[Family]:
    stats = node.enroller.facts.stats
    yield Family(
        "tulle_agent_enrolments_total",
        "counter",
        "Pods captured that were not captured before",
        (("", stats.enrolments),),
    )
    yield Family(
        "tulle_agent_enrolment_seconds_total",
        "counter",
        "Time from knowing that a pod belongs in the mesh to its capture, summed",
        (("", stats.enrolment_s_sum),),
    )
    yield _labelled(
        "tulle_agent_enrolment_failures_total",
        "counter",
        "Steps that failed, by reason",
        "reason",
        {reason: float(count) for reason, count in stats.failures.items()},
    )
