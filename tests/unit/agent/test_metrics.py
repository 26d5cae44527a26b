"""Families with labels, read back by Prometheus' own parser."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from agent.cni.part import CniPart
from agent.config import CniConfig
from agent.cri.follow import RuntimeFollower
from agent.datapath.audit import LostPart
from agent.metrics import counters, families, gauges
from agent.status import Agent
from tests.unit.agent.agent_example import example


class Fixed(Collector):
    def __init__(self, *families: Metric) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        return iter(self._families)


def page(*families: Metric) -> dict[str, Metric]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Fixed(*families))
    text = generate_latest(registry).decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def test_gauges_and_counters_are_read_back() -> None:
    found = page(
        gauges("a_b", 'What "it" is\nabout', "map", {"pods": 3.5}),
        counters("c_total", "Count", "kind", {"x": 1, "y": 2}),
        counters("empty_total", "None yet", "kind", {}),
    )
    assert found["a_b"].samples[0].value == 3.5
    assert found["a_b"].type == "gauge"
    assert [(s.name, s.labels, s.value) for s in found["c"].samples] == [
        ("c_total", {"kind": "x"}, 1.0),
        ("c_total", {"kind": "y"}, 2.0),
    ]
    assert found["empty"].samples == []


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_label_survives(text: str) -> None:
    assert page(gauges("a", "Help", "label", {text: 1}))["a"].samples[0].labels == {"label": text}


def shown(agent: Agent) -> dict[str, Metric]:
    return {family.name: family for family in families(agent)}


def test_an_agent_shows_its_pods_maps_and_counters(tmp_path: Path) -> None:
    found = shown(example(tmp_path))
    pods = {sample.labels["state"]: sample.value for sample in found["tulle_agent_pods"].samples}
    assert (pods["captured"], pods["pending"], pods["failed"]) == (1, 1, 0)
    drops = found["tulle_agent_map_drops"].samples
    assert {sample.labels["map"]: sample.value for sample in drops} == {"pods": 0, "flows": 2}
    assert found["tulle_agent_direct_on"].samples[0].value == 0
    lost = found["tulle_agent_kernel_differences"].samples
    assert {sample.labels["kind"]: sample.value for sample in lost} == dict.fromkeys(LostPart, 0)
    assert "tulle_agent_intents_age_seconds" not in found  # nothing has been heard yet
    assert all(family.documentation for family in found.values())


def test_a_container_runtime_is_counted_where_there_is_one(tmp_path: Path) -> None:
    agent = example(tmp_path)
    runtime = RuntimeFollower(agent.enroller, lambda: True, agent.clock, [tmp_path / "absent"])
    runtime.link.error, runtime.link.sandboxes, runtime.link.released = "", 3, 2
    found = shown(replace(agent, runtime=runtime))
    assert found["tulle_agent_runtime_connected"].samples[0].value == 1
    assert found["tulle_agent_runtime_sandboxes"].samples[0].value == 3
    actions = {
        each.labels["action"]: each.value for each in found["tulle_agent_runtime_pods"].samples
    }
    assert actions == {"registered": 0, "released": 2}
    assert "tulle_agent_runtime_connected" not in shown(agent)


def test_calls_of_the_plugin_are_counted_where_there_is_one(tmp_path: Path) -> None:
    agent = example(tmp_path)
    cni = CniPart(CniConfig(host_prefix=tmp_path, state_dir=tmp_path), "n1", tmp_path, agent.clock)
    door = cni.door(agent.enroller, agent.intents, agent.direct)
    door.calls["ADD", "refused"] += 3
    cni.keeper.is_kept = True
    found = shown(replace(agent, cni=cni))
    assert found["tulle_agent_cni_kept"].samples[0].value == 1
    (sample,) = found["tulle_agent_cni_calls"].samples
    assert (sample.labels, sample.value) == ({"command": "ADD", "outcome": "refused"}, 3)
    assert "tulle_agent_cni_kept" not in shown(agent)
