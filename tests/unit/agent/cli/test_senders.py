from __future__ import annotations

import pytest

from agent.cli.senders import host_of, senders
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
