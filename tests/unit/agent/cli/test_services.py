"""`tulle services`: addresses, ports and healthy endpoints."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import rows, run, save


def test_services_with_healthy_and_all_endpoints(dump: str) -> None:
    assert rows(run("services", "-f", dump)) == [
        ["NAMESPACE", "SERVICE", "ADDRESS", "PORTS", "ENDPOINTS"],
        ["shop", "b", "172.20.0.10,fd72::a,192.0.2.1", "80", "1/2"],
    ]
    assert "b.shop.svc.cluster.local" in run("services", "-f", dump, "-o", "wide").stdout


def test_the_control_plane_knows_them_when_no_tunnel_answers(tmp_path: Path) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        del parts["ztunnel"]
    assert run("services", "-f", save(tmp_path, mesh)).stderr == "no services\n"
    row = {"namespace": "shop", "name": "c", "hostname": "c.example", "addresses": ["172.20.0.1"]}
    outer = [{"address": "192.0.2.1", "ports": [80]}]
    mesh.control["services"] = [{**row, "outer_addresses": outer}]
    assert run("services", "-f", save(tmp_path, mesh), "-o", "name").stdout == "shop/c\n"
    found = rows(run("services", "-f", save(tmp_path, mesh)))
    assert found[1][:3] == ["shop", "c", "172.20.0.1,192.0.2.1"]
