"""Several workloads with one address or one claim, as a foreign control plane may send them."""

from __future__ import annotations

from itertools import permutations

import pytest

from control.model.address import parse_address
from control.model.workload import (
    NetworkMode,
    OuterAddress,
    Port,
    Service,
    TunnelProtocol,
    Workload,
)
from tests.support.engine.meshes import at, mesh, pod, service
from tests.support.routes import way
from ztunnel.mesh.owners import is_pod_uid
from ztunnel.mesh.state import State

ADDRESS = "10.5.0.1"
HOST = NetworkMode.HOST_NETWORK
NONE = TunnelProtocol.NONE
CLIENT = pod("client", "10.1.0.9", namespace="demo", node="n1")
# From the strongest on.
LOCAL = pod("local", ADDRESS, node="n1")
LOCAL_PLAIN = pod("local-plain", ADDRESS, node="n1", tunnel_protocol=NONE)
CAPTURED = pod("captured", ADDRESS, node="n2")
PLAIN = pod("plain", ADDRESS, node="n2", tunnel_protocol=NONE)
ENTRY = pod("entry", ADDRESS, uid="c/networking.istio.io/WorkloadEntry/shop/entry", node="n1")
ENTRY_PLAIN = pod(
    "entry-plain",
    ADDRESS,
    uid="c/networking.istio.io/WorkloadEntry/shop/entry-plain",
    tunnel_protocol=NONE,
)
ON_HOST = pod("on-host", ADDRESS, network_mode=HOST, tunnel_protocol=NONE, node="n2")
SLICE = pod(
    "slice",
    ADDRESS,
    uid=f"c/discovery.k8s.io/EndpointSlice/shop/slice/{ADDRESS}",
    network_mode=HOST,
    tunnel_protocol=NONE,
)
STRENGTH = (LOCAL, LOCAL_PLAIN, CAPTURED, PLAIN, ENTRY, ENTRY_PLAIN, ON_HOST)


def owner(*values: Workload | Service) -> Workload | None:
    return state(*values).workload_at("", at(ADDRESS))


def state(*values: Workload | Service) -> State:
    return mesh(CLIENT, *values, node="n1")


@pytest.mark.parametrize(("strong", "weak"), list(permutations(range(len(STRENGTH)), 2)))
def test_the_stronger_one_has_the_address_whoever_came_first(strong: int, weak: int) -> None:
    expected = STRENGTH[min(strong, weak)]
    assert owner(STRENGTH[strong], STRENGTH[weak]) == expected
    assert owner(SLICE, STRENGTH[strong], SLICE, STRENGTH[weak]) == expected


def test_of_equals_the_latest_has_it() -> None:
    other = pod("other", ADDRESS, node="n2")
    assert owner(CAPTURED, other) == other
    assert owner(other, CAPTURED) == CAPTURED


def test_a_slice_alone_is_nobody() -> None:
    assert owner(SLICE) is None


def test_without_a_node_name_nobody_is_local() -> None:
    here = mesh(pod("a", ADDRESS), pod("b", ADDRESS, tunnel_protocol=NONE))
    found = here.workload_at("", at(ADDRESS))
    assert found is not None
    assert found.name == "a"


@pytest.mark.parametrize(
    ("uid", "expected"),
    [
        ("Kubernetes//Pod/shop/web", True),
        ("Kubernetes/discovery.k8s.io/EndpointSlice/shop/web/10.1.0.1", False),
        ("Kubernetes/networking.istio.io/WorkloadEntry/shop/web", False),
        ("Kubernetes/networking.istio.io/ServiceEntry/shop/web/1.2.3.4", False),
        ("NetworkGateway/net/1.2.3.4/15008", False),
        ("Kubernetes/x/Pod/shop/web", False),
        ("anything", True),
    ],
)
def test_kinds_by_uid(uid: str, expected: bool) -> None:
    assert is_pod_uid(uid) is expected


BACKEND = pod("backend", "10.1.0.1", services={"shop/vip.shop.svc.cluster.local": (Port(80, 81),)})
VIP = service("vip", ADDRESS)
OUTER = service("vip", outer_addresses=(OuterAddress("", parse_address(ADDRESS), (80,)),))


@pytest.mark.parametrize(
    ("value", "has_vip", "has_outer"),
    [
        (LOCAL, False, False),
        (LOCAL_PLAIN, False, False),
        (CAPTURED, True, False),
        (ENTRY, True, False),
        (ON_HOST, True, True),  # the control plane says which ports of a host lead elsewhere
        (SLICE, True, True),
    ],
)
def test_a_local_pods_address_is_no_vip_and_no_workloads_own_is_an_outer_one(
    value: Workload, has_vip: bool, has_outer: bool
) -> None:
    for found, is_service in ((VIP, has_vip), (OUTER, has_outer)):
        for order in ([found, value], [value, found]):
            led = way(state(BACKEND, *order), "demo/client", f"{ADDRESS}:80")
            assert (led == "hbone 10.1.0.1:81 shop/backend") is is_service
            if not is_service:
                assert f" {ADDRESS}:80" in led


def test_a_port_of_a_host_with_several_pods_leads_to_the_pod_behind_it() -> None:
    other = pod("other", ADDRESS, network_mode=HOST, tunnel_protocol=NONE, node="n2")
    here = state(BACKEND, OUTER, ON_HOST, other)
    assert way(here, "demo/client", f"{ADDRESS}:80") == "hbone 10.1.0.1:81 shop/backend"
    assert way(here, "demo/client", f"{ADDRESS}:81") == f"plain {ADDRESS}:81"


def test_an_outer_address_never_shadows_a_vip_and_leads_by_port() -> None:
    # Its name comes first, and its namespace is the client's.
    thief = service(
        "aaa",
        namespace="demo",
        ports=(Port(80, 9), Port(81, 9)),
        outer_addresses=(OuterAddress("", parse_address(ADDRESS), (80, 81)),),
    )
    here = state(BACKEND, VIP, thief, pod("t", "10.1.0.7", services={thief.key: ()}))
    assert way(here, "demo/client", f"{ADDRESS}:80") == "hbone 10.1.0.1:81 shop/backend"
    assert way(here, "demo/client", f"{ADDRESS}:81") == "refused no_service_port"
    alone = state(thief, pod("t", "10.1.0.7", services={thief.key: ()}))
    assert way(alone, "demo/client", f"{ADDRESS}:80") == "hbone 10.1.0.7:9 shop/t"
    assert way(alone, "demo/client", f"{ADDRESS}:82") == f"plain {ADDRESS}:82"


def test_of_two_services_with_one_vip_the_one_with_the_port_is_meant() -> None:
    """Older control planes of ours, and foreign ones, serve a shared address as two VIPs."""
    web = service("web", ADDRESS, ports=(Port(80, 8080),))
    mqtt = service("mqtt", ADDRESS, ports=(Port(1883, 1884),), namespace="other")
    both = {web.key: (), mqtt.key: ()}
    here = state(web, mqtt, pod("backend", "10.1.0.1", services=both))
    assert way(here, "demo/client", f"{ADDRESS}:80") == "hbone 10.1.0.1:8080 shop/backend"
    assert way(here, "demo/client", f"{ADDRESS}:1883") == "hbone 10.1.0.1:1884 shop/backend"
    assert way(here, "demo/client", f"{ADDRESS}:22") == "refused no_service_port"


@pytest.mark.parametrize("order", [1, -1])
def test_the_local_workload_of_a_pod_is_a_pod(order: int) -> None:
    real = pod("web", "10.0.0.2", node="n2")
    for kind in ("discovery.k8s.io/EndpointSlice", "networking.istio.io/WorkloadEntry"):
        fake = pod("web", "10.0.0.3", uid=f"Kubernetes/{kind}/shop/web", node="n1")
        found = state(*(real, fake)[::order]).local_workload("shop", "web", "web")
        assert found == real
        assert state(fake).local_workload("shop", "web", "web") is None
