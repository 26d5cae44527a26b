from __future__ import annotations

import pytest

from agent.cli.senders import host_of, refused_of_nodes, senders
from tests.unit.agent.cli.mesh_example import example, workload


def test_pods_and_hosts_have_names() -> None:
    mesh = example()
    shared = {**workload("proxy", "n2", "10.70.0.2"), "networkMode": "HostNetwork"}
    mesh.nodes["n1"]["ztunnel"]["workloads"].append(shared)
    found = senders(mesh)
    assert (found["10.71.1.2"], found["10.70.0.2"]) == ("shop/a", "node n2")


@pytest.mark.parametrize(
    ("endpoint", "host"),
    [("10.0.0.1:80", "10.0.0.1"), ("[fd00::1]:80", "fd00::1"), ("", "")],
)
def test_the_address_of_an_endpoint(endpoint: str, host: str) -> None:
    assert host_of(endpoint) == host


def test_what_refused_a_nodes_own_network_is_named_with_the_port_and_a_count() -> None:
    mesh = example()
    of_node = {"namespace": "kube-system", "name": "p", "node": "n2", "reason": "host network"}
    outside = {"namespace": "other", "name": "q", "node": "n2", "reason": "not enrolled"}
    mesh.control["pods"] = [
        {**of_node, "addresses": ["10.70.0.2", "fd00::2"]},
        {**outside, "addresses": ["10.72.1.9"]},
    ]
    pod = mesh.nodes["n1"]["agent"]["pods"][0]
    strict = {"reason": "inbound_strict", "dst": "10.71.1.2:8080"}
    pod["refused"] = [
        {**strict, "src": "10.70.0.2:40000", "count": 3},
        {**strict, "src": "[fd00::2]:40001", "dst": "[fd71::2]:8080", "count": 4},
        {**strict, "src": "10.72.1.9:40000", "count": 5},  # a pod's
        {**strict, "src": "10.70.0.2:40002", "reason": "inbound_stale", "count": 6},
        {**strict, "src": "10.71.1.1:40003", "host": True, "count": 8},  # the bridge of its node
    ]
    of_other = "shop/a refused node n2 at port 8080, times since its capture: 7"
    own = "shop/a refused node n1 at port 8080, times since its capture: 8"
    assert refused_of_nodes(mesh) == [own, of_other]
    pod["probe_ports"] = [8080]
    assert refused_of_nodes(mesh) == [of_other], "may be the end of a probe"
