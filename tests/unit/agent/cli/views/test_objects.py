"""Rows of workloads, services and policies, from an example mesh."""

from __future__ import annotations

from agent.cli.mesh import MeshDump
from agent.cli.views.objects import policy_rows, service_rows, workload_rows
from agent.cli.views.pages import Filter
from tests.unit.agent.cli.mesh_example import NOW, A, B, example


def test_workloads_come_once_with_identity_and_capture() -> None:
    rows = workload_rows(example(), Filter())
    assert [(row["name"], row["node"], row["identity"]) for row in rows] == [
        ("a", "n1", A),
        ("b", "n2", B),
    ]
    assert [row["captured_since"] for row in rows] == ["2026-11-22T11:00:00Z", None]


def test_the_control_plane_answers_when_no_ztunnel_does() -> None:
    mesh = MeshDump(
        NOW,
        control={"workloads": [{"uid": "u", "namespace": "x", "name": "y", "status": "HEALTHY"}]},
    )
    assert [(row["name"], row["status"]) for row in workload_rows(mesh, Filter())] == [
        ("y", "Healthy")
    ]


def test_services_and_policies() -> None:
    assert service_rows(example(), Filter())[0] == {
        "namespace": "shop",
        "name": "b",
        "addresses": ["172.20.0.10", "fd72::a", "192.0.2.1"],
        "ports": [80],
        "endpoints": "1/2",
        "hostname": "b.shop.svc.cluster.local",
    }
    assert [row["rules"] for row in policy_rows(example(), Filter())] == [1]
