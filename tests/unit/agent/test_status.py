"""The status page of an agent."""

from __future__ import annotations

import json
from pathlib import Path

from agent.enrol.plan import PodState
from tests.support.clock import FakeClock
from tests.unit.agent.agent_example import ADDRESS, example


def test_every_pod_is_shown_also_one_that_is_only_expected(tmp_path: Path) -> None:
    agent = example(tmp_path)
    assert agent.pod_states() == [
        ("u1", PodState.CAPTURED, "no_ztunnel"),
        ("u2", PodState.PENDING, "not_registered"),
    ]
    captured, expected = agent.status()["pods"]
    assert (captured["addresses"], captured["netns"]) == (["10.0.0.1"], "/run/netns/tulle-absent")
    assert (captured["direct"], captured["direct_reason"]) == (False, "by label")
    assert captured["refused"] == [
        {
            "src": "10.0.0.1:5",
            "host": False,
            "dst": "10.0.0.1:80",
            "reason": "inbound_strict",
            "count": 5,
        }
    ]
    assert (expected["name"], expected["service_account"], expected["netns"]) == (
        "db",
        "account",
        "",
    )
    assert len(ADDRESS) == 4


def test_a_pod_that_waits_for_the_direct_path_says_why(tmp_path: Path) -> None:
    agent = example(tmp_path)
    agent.enroller.facts.book.allowed_direct("u1", True)
    agent.enroller.facts.book.held("u1", agent.clock.monotonic_s() + 5.0)
    assert agent.status()["pods"][0]["direct_reason"] == "earlier_connections"
    assert isinstance(agent.clock, FakeClock)
    agent.clock.pass_s(5.0)
    assert agent.status()["pods"][0]["direct_reason"] == "by label"


def test_the_page_is_json_of_the_contracts_fields(tmp_path: Path) -> None:
    status = json.loads(json.dumps(example(tmp_path).status()))
    assert status.keys() == {
        "node",
        "version",
        "started_at",
        "control",
        "cni",
        "runtime",
        "ztunnels",
        "pods",
        "maps",
        "direct",
        "kubelet",
        "counters",
        "kernel",
        "datapath",
    }
    assert status["control"]["connected"] is False
    assert status["direct"] == {"on": False, "reason": "no_direct", "shortcut": "on"}
    assert status["maps"][1] == {"name": "flows", "used": 0, "max": 64, "drops": 2}


def test_the_age_of_intents_counts_from_the_last_message(tmp_path: Path) -> None:
    agent = example(tmp_path)
    assert agent.intents_age_s() is None
    agent.intents.connection.heard_s = agent.clock.monotonic_s()
    assert isinstance(agent.clock, FakeClock)
    agent.clock.pass_s(7.0)
    assert agent.intents_age_s() == 7.0
    agent.intents.connection.connected = True
    assert agent.intents_age_s() == 0.0
