"""Verdicts on a mesh: which part is away or unwell, which pod is missing, and why."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from agent.cli import health
from agent.cli.mesh import MeshDump
from agent.direct.reasons import MEANINGS
from tests.unit.agent.cli.mesh_example import NOW, example


def row(mesh: MeshDump, name: str) -> dict[str, Any]:
    (found,) = (each for each in health.components(mesh) if each["name"] == name)
    return found


def test_a_mesh_that_is_well() -> None:
    mesh = example()
    assert row(mesh, "control")["state"] == "ok"
    assert row(mesh, "agent-n1")["detail"] == "1/1 enrolled pods captured"
    told = row(mesh, "ztunnel-n1")
    assert (told["state"], told["detail"]) == ("ok", "workers 1, pods 1, connections 1")
    assert (told["version"], told["compiled"]) == ("1.0", "yes")


@pytest.mark.parametrize(("current", "state"), [(None, "ok"), (True, "ok"), (False, "warning")])
def test_a_worker_without_the_last_changes_is_counted(current: bool | None, state: str) -> None:
    """An older ztunnel does not say."""
    mesh = example()
    workers = mesh.nodes["n1"]["ztunnel"]["workers"]
    workers.append({"pid": 2} if current is None else {"pid": 2, "current": current})
    told = row(mesh, "ztunnel-n1")
    assert told["state"] == state
    behind = "workers that have not taken the last changes yet: 1"
    assert (behind in told["detail"]) is (current is False)


@pytest.mark.parametrize(
    ("hours_left", "state", "word"),
    [(20, "ok", ""), (-1, "warning", "late: 1"), (None, "warning", "late: 1")],
)
def test_certificates_in_trouble_are_counted(hours_left: int | None, state: str, word: str) -> None:
    mesh = example()
    entry = {
        "identity": "spiffe://cluster.local/ns/a/sa/b",
        "state": "Unavailable",
        "certChain": [],
    }
    if hours_left is not None:
        ends = NOW + timedelta(hours=hours_left)
        chain = {"validFrom": (NOW - timedelta(hours=4)).isoformat()}
        entry["certChain"] = [chain | {"expirationTime": ends.isoformat()}]
    mesh.nodes["n1"]["ztunnel"]["certificates"] = [
        entry,
        {"identity": "b", "state": "Initializing"},
    ]
    told = row(mesh, "ztunnel-n1")
    assert told["state"] == state
    assert word in told["detail"]


@pytest.mark.parametrize("odd", [[None], [{"certChain": [{}]}], 7, [{"certChain": 7}]])
def test_certificates_in_another_form_end_nothing(odd: Any) -> None:
    mesh = example()
    mesh.nodes["n1"]["ztunnel"]["certificates"] = odd
    assert row(mesh, "ztunnel-n1")["state"] == "ok"


def test_parts_that_do_not_answer_say_what_that_means() -> None:
    mesh = example()
    mesh.control = {}
    mesh.away["control"] = "/run/tulle/control/admin.sock: no answer in time"
    del mesh.nodes["n1"]["ztunnel"], mesh.nodes["n2"]["agent"]
    assert [each["name"] for each in health.components(mesh) if each["state"] == "away"] == [
        "control",
        "ztunnel-n1",
        "agent-n2",
    ]
    assert "1 captured pods refuse connections" in row(mesh, "ztunnel-n1")["detail"]
    mesh.away["ztunnel-n1"] = "/run/tulle/n1/ztunnel.sock: no answer in time"
    told = "no answer in time; 1 captured pods hear of no change until it is back"
    assert row(mesh, "ztunnel-n1")["detail"] == told
    told = "no answer in time; nodes keep their last state"
    assert row(mesh, "control")["detail"] == told


def test_a_control_plane_on_another_host_is_not_away() -> None:
    mesh = example()
    mesh.control = {}
    assert row(mesh, "control")["state"] == "elsewhere"


@pytest.mark.parametrize(("ours", "state"), [(True, "away"), (False, "ok")])
def test_a_ztunnel_of_another_make_has_no_socket_and_is_well(ours: bool, state: str) -> None:
    mesh = example()
    del mesh.nodes["n1"]["ztunnel"]
    mesh.nodes["n1"]["agent"]["ztunnels"] = [{"pid": 1, "ours": ours}]
    assert row(mesh, "ztunnel-n1")["state"] == state


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"ztunnels": []}, "no ztunnel is connected"),
        (
            {"control": {"connected": False, "error": "dial: [Errno 111] Connection refused"}},
            "control plane away: Connection refused",
        ),
        ({"control": {}}, "control plane away: not connected yet"),
        (
            {
                "control": {
                    "error": "UNAVAILABLE: Tls handshake failed: SSL_ERROR_SSL: error:1000007d: "
                    "OPENSSL_internal:CERTIFICATE_VERIFY_FAILED: certificate has expired: OK"
                }
            },
            "control plane away: its certificate is refused: certificate has expired",
        ),
    ],
)
def test_an_agent_that_is_not_well(change: dict[str, Any], told: str) -> None:
    mesh = example()
    mesh.nodes["n1"]["agent"].update(change)
    found = row(mesh, "agent-n1")
    assert found["state"] == "warning"
    assert found["detail"].endswith(told)


def test_pods_that_leave_are_counted_apart() -> None:
    mesh = example()
    pods = mesh.nodes["n1"]["agent"]["pods"]
    pods += [{**pods[0], "state": "releasing"}, {**pods[0], "state": "not_enrolled"}]
    assert row(mesh, "agent-n1")["detail"] == "1/1 enrolled pods captured; 1 leaving the mesh"


@pytest.mark.parametrize(
    ("direct", "told"),
    [
        ({"on": True, "shortcut": "on"}, "direct path on, with shortcut"),
        ({"on": True, "shortcut": "off"}, "direct path on"),
        *(({"on": False, "reason": key}, text) for key, text in sorted(MEANINGS.items())),
        ({"on": False, "reason": "of a newer agent"}, "of a newer agent"),
    ],
)
def test_the_direct_path_says_why_it_is_off(direct: dict[str, Any], told: str) -> None:
    mesh = example()
    mesh.nodes["n1"]["agent"]["direct"] = direct
    assert told in row(mesh, "agent-n1")["detail"]


@pytest.mark.parametrize(
    ("kubelet", "told"),
    [
        ({"recognised": True, "reason": ""}, "; kubelet's probes recognised"),
        ({"recognised": False, "reason": "of_tomorrow"}, "not recognised (of_tomorrow)"),
        ({"recognised": False, "reason": "in_pod"}, "(a pod listens on the kubelet's port)"),
    ],
)
def test_the_kubelet_is_told_where_pods_have_probes(kubelet: dict[str, Any], told: str) -> None:
    mesh = example()
    mesh.nodes["n1"]["agent"]["kubelet"] = kubelet
    mesh.nodes["n1"]["agent"]["pods"][0]["probe_ports"] = [80]
    assert told in row(mesh, "agent-n1")["detail"]
    del mesh.nodes["n1"]["agent"]["pods"][0]["probe_ports"]
    assert ("kubelet" in row(mesh, "agent-n1")["detail"]) is kubelet["recognised"]


def test_a_ztunnel_without_the_others_is_a_warning() -> None:
    mesh = example()
    mesh.nodes["n1"]["ztunnel"]["control"] = {"connected": False, "error": "x: no route"}
    assert row(mesh, "ztunnel-n1")["detail"].endswith("control plane away: no route")
    assert row(mesh, "ztunnel-n1")["state"] == "warning"


def test_pods_of_an_enrolled_namespace_that_are_left_out_are_named_once() -> None:
    mesh = example()
    mesh.control["pods"] = [
        {"namespace": "shop", "name": "b", "enrolled": False, "reason": "opted_out", "node": "n2"},
        {"namespace": "shop", "name": "c", "enrolled": False, "reason": "host", "node": "n1"},
        {"namespace": "shop", "name": "d", "enrolled": False, "reason": "host", "node": "n9"},
        {"namespace": "idle", "name": "e", "enrolled": False, "reason": "host", "node": "n1"},
        {"namespace": "shop", "name": "a", "enrolled": True, "node": "n1"},
    ]
    found = [(each["name"], each["state"], each["reason"]) for each in health.uncaptured(mesh)]
    assert found == [("b", "failed", "no_ztunnel"), ("c", "not_enrolled", "host")]


def test_reasons_are_words_and_unknown_ones_stay() -> None:
    assert " " in health.reason_text({"reason": "releasing"})
    assert health.reason_text({"reason": "of_tomorrow"}) == "of_tomorrow"
    assert health.reason_text({}) is None


def test_problems_have_their_place_and_may_be_plain_text() -> None:
    told = {"file": "a.yaml", "line": 3, "object": "Pod x/y", "message": "bad"}
    mesh = MeshDump(NOW, control={"status": {"nodes": []}, "problems": [told, "a bare line"]})
    assert [health.problem_text(each) for each in health.problems(mesh)] == [
        "a.yaml:3: Pod x/y: bad",
        "a bare line",
    ]
    assert row(mesh, "control")["detail"] == "nodes 0; 2 problems in manifests"


def test_components_say_who_is_away_and_what_is_wrong() -> None:
    mesh = example()
    del mesh.nodes["n2"]["ztunnel"]
    mesh.nodes["n2"]["agent"]["ztunnels"] = []
    mesh.control, mesh.away = {}, {"control": ""}
    found = {row["name"]: (row["state"], row["detail"]) for row in health.components(mesh)}
    assert found["control"] == (
        "away",
        "no answer on its admin socket; nodes keep their last state",
    )
    assert found["agent-n1"] == ("ok", "1/1 enrolled pods captured")
    assert found["agent-n2"] == ("warning", "0/1 enrolled pods captured; no ztunnel is connected")
    assert found["ztunnel-n2"][0] == "away"
    assert [(row["name"], row["state"]) for row in health.uncaptured(mesh)] == [("b", "failed")]


def test_a_ztunnel_says_whether_it_runs_compiled_modules() -> None:
    found = {row["name"]: (row["version"], row["compiled"]) for row in health.components(example())}
    assert found["ztunnel-n1"] == ("1.0", "yes")
    assert found["agent-n1"] == ("1.0", None)


def test_an_agent_counts_the_pods_that_should_be_captured() -> None:
    mesh = example()
    states = ["captured", "releasing", "not_enrolled"]
    mesh.nodes["n1"]["agent"]["pods"] = [
        {"namespace": "shop", "name": state, "state": state} for state in states
    ]
    mesh.nodes["n2"]["agent"]["pods"] = []
    mesh.nodes["n2"]["ztunnel"]["agent"] = {"connected": False, "error": "[Errno 111] Refused"}
    found = {row["name"]: (row["state"], row["detail"]) for row in health.components(mesh)}
    assert found["agent-n1"] == ("ok", "1/1 enrolled pods captured; 1 leaving the mesh")
    assert found["agent-n2"] == ("ok", "no pods enrolled")
    assert found["ztunnel-n2"][1].endswith("; agent away: Refused")


def test_who_is_left_out_of_an_enrolled_namespace_is_named() -> None:
    mesh = example()
    mesh.nodes["n2"]["agent"]["pods"][0]["state"] = "not_enrolled"
    mesh.control["pods"] = [
        {"namespace": "shop", "name": "a", "node": "n1", "enrolled": True, "reason": ""},
        {"namespace": "shop", "name": "b", "node": "n2", "enrolled": False, "reason": "sidecar"},
        {"namespace": "idle", "name": "c", "node": "n2", "enrolled": False, "reason": "no label"},
    ]
    found = [(row["name"], row["state"], row["reason"]) for row in health.uncaptured(mesh)]
    assert found == [("b", "not_enrolled", "sidecar")]


def test_the_agents_line_says_whether_the_direct_path_is_on() -> None:
    mesh = example()
    mesh.nodes["n1"]["agent"]["direct"] = {"on": True, "reason": ""}
    mesh.nodes["n2"]["agent"]["direct"] = {"on": False, "reason": "no_direct"}
    found = {row["name"]: row["detail"] for row in health.components(mesh)}
    assert "direct path on" in found["agent-n1"]
    assert "direct path off (switched off)" in found["agent-n2"]
