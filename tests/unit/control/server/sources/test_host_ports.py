"""Host ports as a pod's object tells them."""

from __future__ import annotations

import pytest

from control.model.address import format_address
from tests.support.manifests import load, objects

HOST = "hostIPs: [{ip: 192.168.0.5}, {ip: 'fd00::5'}]"


def read(ports: str, status: str = HOST, spec: str = "", key: str = "containers") -> list[str]:
    (pod,) = objects(text(ports, status, spec, key)).pods
    return [f"{format_address(e.address)} {e.port}>{e.target}" for e in pod.host_ports]


def text(ports: str, status: str = HOST, spec: str = "", key: str = "containers") -> str:
    restart = ", restartPolicy: Always" if key == "initContainers" else ""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: web, namespace: shop}}
spec: {{nodeName: n1, {spec} {key}: [{{name: app, ports: [{ports}]{restart}}}]}}
status: {{phase: Running, {status}}}
"""


@pytest.mark.parametrize("key", ["containers", "initContainers"])
def test_a_host_port_is_at_every_address_of_the_node(key: str) -> None:
    found = read("{containerPort: 80, hostPort: 8080}", key=key)
    assert found == ["192.168.0.5 8080>80", "fd00::5 8080>80"]
    assert read("{containerPort: 80, hostPort: 8080}", "hostIP: 10.0.0.1") == ["10.0.0.1 8080>80"]


@pytest.mark.parametrize(
    ("host_ip", "expected"),
    [
        ("0.0.0.0", ["192.168.0.5 8080>80"]),
        ("'::'", ["fd00::5 8080>80"]),
        ("192.168.0.5", ["192.168.0.5 8080>80"]),
        ("'::ffff:192.168.0.5'", ["192.168.0.5 8080>80"]),
        ("127.0.0.1", []),
        ("8.8.8.8", []),  # a tenant may write what it likes
    ],
)
def test_a_host_ip_narrows_it_to_addresses_of_the_node(host_ip: str, expected: list[str]) -> None:
    assert read(f"{{containerPort: 80, hostPort: 8080, hostIP: {host_ip}}}") == expected


def test_others_have_none() -> None:
    port = "{containerPort: 80, hostPort: 8080}"
    assert read("{containerPort: 80}") == []
    assert read("{containerPort: 80, hostPort: 0}") == []
    assert read("{containerPort: 53, hostPort: 53, protocol: UDP}") == []
    assert read(port, spec="hostNetwork: true,") == []
    assert read(port, "podIP: 10.1.0.1") == []  # no kubelet has taken it


@pytest.mark.parametrize(
    "ports", ["hostPort: 70000", "hostPort: -1", "hostPort: x", "hostPort: 1, hostIP: here"]
)
def test_a_port_or_address_that_is_none_is_one_problem(ports: str) -> None:
    snapshot = load(text(f"{{containerPort: 80, {ports}}}"))
    assert len(snapshot.problems) == 1
    assert "host" in snapshot.problems[0].message
