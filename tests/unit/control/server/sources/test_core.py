"""Core kinds: the API server's defaults, and what is refused."""

from __future__ import annotations

import pytest

from control.model.address import format_address
from tests.support.manifests import load, objects, pod


def test_defaults_of_a_pod() -> None:
    (found,) = objects(
        pod(spec="containers: [{ports: [{containerPort: 80}]}]").replace("namespace: shop,", "")
    ).pods
    assert (found.meta.namespace, found.service_account) == ("default", "default")
    assert found.ports[0].protocol == "TCP"
    assert found.ready


@pytest.mark.parametrize(
    ("status", "ready"),
    [
        ("{phase: Running}", True),
        ("{phase: Pending}", False),
        ("{phase: Running, conditions: [{type: Ready, status: 'False'}]}", False),
        ("{phase: Running, conditions: [{type: Initialized, status: 'True'}]}", False),
        ("{phase: Running, conditions: [{type: Ready, status: 'True'}]}", True),
    ],
)
def test_readiness(status: str, ready: bool) -> None:
    text = pod().replace("{phase: Running, podIP: 10.1.0.1}", status)
    assert objects(text).pods[0].ready is ready


def test_a_pod_being_deleted_is_not_ready() -> None:
    text = pod().replace("namespace: shop", "namespace: shop, deletionTimestamp: x")
    assert not objects(text).pods[0].ready


@pytest.mark.parametrize(
    "text",
    [
        pod().replace("10.1.0.1", "10.1.0"),
        pod(spec="hostNetwork: 'true'"),
        pod(spec="containers: [{ports: [{containerPort: 70000}]}]"),
        pod(spec="containers: [{ports: [{}]}]"),
        pod(spec="containers: [{ports: [{containerPort: true}]}]"),
        pod(labels="a: true"),
        pod().replace("namespace: shop", "namespace: shop, creationTimestamp: yesterday"),
        pod().replace("namespace: shop", "namespace: shop, uid: a/b"),
    ],
)
def test_what_cannot_be_is_refused(text: str) -> None:
    found = load(text)
    assert [each.reason for each in found.problems] == ["invalid"]
    assert found.objects.pods == ()


def test_a_pod_being_deleted_may_still_serve() -> None:
    text = pod().replace("namespace: shop", "namespace: shop, deletionTimestamp: x")
    (found,) = objects(text).pods
    assert (found.is_leaving, found.last_resort) == (True, True)
    down = text.replace("phase: Running", "phase: Running, conditions: [{type: Ready}]")
    (found,) = objects(down).pods
    assert (found.is_leaving, found.last_resort) == (True, False)
    (found,) = objects(pod()).pods
    assert (found.is_leaving, found.last_resort) == (False, False)


def test_ports_of_containers_and_of_sidecars() -> None:
    spec = (
        "initContainers: [{ports: [{containerPort: 1}]}, "
        "{restartPolicy: Always, ports: [{containerPort: 2}]}], "
        "containers: [{ports: [{containerPort: 3}]}]"
    )
    (found,) = objects(pod(spec=spec)).pods
    assert [each.port for each in found.ports] == [3, 2]


def test_addresses_of_a_node() -> None:
    text = (
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\nstatus: {addresses: ["
        "{type: InternalIP, address: 192.0.2.1}, {type: ExternalIP, address: '2001:db8::1'}, "
        "{type: Hostname, address: n1}, {type: InternalDNS, address: n1.example}]}\n"
    )
    (found,) = objects(text).nodes
    assert [format_address(each) for each in found.addresses] == ["192.0.2.1", "2001:db8::1"]
