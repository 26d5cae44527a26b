"""Rows of every command, from an example mesh."""

from __future__ import annotations

from agent.cli import health, views
from agent.cli.mesh import MeshDump
from agent.cli.selector import parse
from agent.cli.views import Filter
from tests.unit.agent.cli.mesh_example import NOW, A, B, connection, example


def test_workloads_come_once_with_identity_and_capture() -> None:
    rows = views.workloads(example(), Filter())
    assert [(row["name"], row["node"], row["identity"]) for row in rows] == [
        ("a", "n1", A),
        ("b", "n2", B),
    ]
    assert [row["captured_since"] for row in rows] == ["2026-11-22T11:00:00Z", None]


def test_filters_by_namespace_and_label() -> None:
    assert views.workloads(example(), Filter(namespace="other")) == []
    rows = views.workloads(example(), Filter(namespace="shop", labels=parse(["app=b"])))
    assert [row["name"] for row in rows] == ["b"]


def test_the_control_plane_answers_when_no_ztunnel_does() -> None:
    mesh = MeshDump(
        NOW,
        control={"workloads": [{"uid": "u", "namespace": "x", "name": "y", "status": "HEALTHY"}]},
    )
    assert [(row["name"], row["status"]) for row in views.workloads(mesh, Filter())] == [
        ("y", "Healthy")
    ]


def test_connections_show_both_identities_age_and_bytes() -> None:
    rows = views.connections(example(), Filter())
    assert [(row["direction"], row["node"]) for row in rows] == [
        ("outbound", "n1"),
        ("inbound", "n2"),
    ]
    first = rows[0]
    assert (first["src"], first["dst"], first["orig_dst"]) == ("shop/a", "shop/b", "172.20.0.10:80")
    assert (first["src_id"], first["dst_id"], first["age"], first["bytes"]) == (A, B, "4m10s", 42)
    assert [row["name"] for row in views.connections(example(), Filter(name="b"))] == ["b"]
    assert len(views.connections(example(), Filter(), "inbound")) == 1


def test_services_policies_and_certificates() -> None:
    assert views.services(example(), Filter())[0] == {
        "namespace": "shop",
        "name": "b",
        "addresses": ["172.20.0.10", "fd72::a", "192.0.2.1"],
        "ports": [80],
        "endpoints": "1/2",
        "hostname": "b.shop.svc.cluster.local",
    }
    assert [row["rules"] for row in views.policies(example(), Filter())] == [1]
    rows = views.certificates(example(), Filter())
    assert [row["type"] for row in rows] == ["leaf", "leaf", "root"]
    assert (rows[0]["valid"], rows[0]["serial"], rows[0]["ends_in"]) == (True, "ff", "12h30m")


def test_namespaces_count_pods_policies_and_what_escaped() -> None:
    idle, shop = views.namespaces(example())
    assert (idle["name"], idle["mode"], idle["pods"]) == ("idle", "none", 0)
    assert shop == {
        "name": "shop",
        "mode": "ambient",
        "pods": 2,
        "captured": 1,
        "uncaptured_connections": 4,
        "policies": 1,
    }


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


def test_the_mode_of_a_namespace_is_what_the_control_plane_decides() -> None:
    tulle, istio = views.MODE_LABELS
    assert views.mode({}) == "none"
    assert views.mode({tulle: "ambient", istio: "none"}) == "none"
    assert views.mode({tulle: "odd", istio: "ambient"}) == "ambient"
    assert views.mode({tulle: "odd"}) == "odd"


def test_a_connection_says_who_carries_it() -> None:
    mesh = example()
    held = mesh.nodes["n1"]["ztunnel"]["workloadState"]["u1"]["connections"]
    held["outbound"] = [
        connection(openedAt="2026-11-22T11:55:50+00:00"),
        connection(path="direct", openedAt="2026-11-22T11:55:51+00:00"),
        connection(protocol="TCP", openedAt="2026-11-22T11:55:52+00:00"),
        connection(path="carrier pigeon", openedAt="2026-11-22T11:55:53+00:00"),
    ]
    rows = views.connections(mesh, Filter(), "outbound")
    assert [row["path"] for row in rows] == ["hbone", "direct", "tcp", "hbone"]


def test_maps_come_by_node_the_fullest_first() -> None:
    rows = views.maps(example())
    assert [(row["node"], row["name"], row["percent"], row["drops"]) for row in rows] == [
        ("n1", "flows", 50.0, 3),
        ("n1", "pods", 0.1, 0),
        ("n2", "flows", 50.0, 3),
        ("n2", "pods", 0.1, 0),
    ]


def test_an_older_agent_knows_no_drops() -> None:
    mesh = MeshDump(NOW, nodes={"n1": {"agent": {"maps": [{"name": "pods", "used": 1, "max": 0}]}}})
    (row,) = views.maps(mesh)
    assert (row["percent"], row["drops"]) == (0.0, 0)


def test_the_agents_line_says_whether_the_direct_path_is_on() -> None:
    mesh = example()
    mesh.nodes["n1"]["agent"]["direct"] = {"on": True, "reason": ""}
    mesh.nodes["n2"]["agent"]["direct"] = {"on": False, "reason": "no_direct"}
    found = {row["name"]: row["detail"] for row in health.components(mesh)}
    assert "direct path on" in found["agent-n1"]
    assert "direct path off (switched off)" in found["agent-n2"]
