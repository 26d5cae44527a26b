"""The routing table of Istio's ambient mode, case by case."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from control.model.address import parse_endpoint
from control.model.workload import (
    BalancingMode,
    GatewayAddress,
    HealthPolicy,
    IpFamilies,
    LoadBalancing,
    Locality,
    NamespacedHostname,
    NetworkMode,
    Port,
    Scope,
    TunnelProtocol,
    Visibility,
    WeightedWaypoint,
    Workload,
    WorkloadStatus,
)
from tests.support.engine.meshes import at, entry, key, mesh, pod, service, spiffe, vip
from ztunnel.mesh.balance import Hint, candidates, nearest
from ztunnel.mesh.route import (
    Decision,
    Passthrough,
    Refuse,
    ToTunnel,
    expected_identities,
    route,
)
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason

CLIENT = pod("client", "10.0.0.1", "fd00::1", locality=Locality("r", "z", "s"), node="n1")
WEB = {key("web"): ()}
GATE = {key("gate"): ()}
BY_NAME = GatewayAddress(NamespacedHostname("shop", "gate.shop.svc.cluster.local"), 15008)
BY_ADDRESS = GatewayAddress(vip("10.9.9.9"), 15008)
GATE_POD = pod("gate", "10.0.0.9", services=GATE)
GATE_SERVICE = service("gate", "10.9.9.9", ports=())


def go(state: State, destination: str, source: Workload = CLIENT) -> Decision:
    return route(state, source, parse_endpoint(destination), random.Random(7))


def tunnel(decision: Decision) -> tuple[str, str]:
    assert isinstance(decision, ToTunnel), decision
    return str(decision.dial), decision.authority


def plain(decision: Decision) -> str:
    assert isinstance(decision, Passthrough), decision
    return str(decision.target)


def test_nothing_is_decided_before_the_first_snapshot() -> None:
    state = State()
    state.apply([entry(CLIENT)])
    assert go(state, "8.8.8.8:53") == Refuse(Reason.NOT_SYNCED)


def test_unknown_destination_passes_through() -> None:
    assert go(mesh(CLIENT), "8.8.8.8:53") == Passthrough(parse_endpoint("8.8.8.8:53"))
    assert plain(go(mesh(CLIENT), "[2001:db8::1]:53")) == "[2001:db8::1]:53"


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_pod_outside_the_mesh_gets_plain_tcp(node: str) -> None:
    bare = pod("bare", "10.0.0.2", node=node, tunnel_protocol=TunnelProtocol.NONE)
    decision = go(mesh(CLIENT, bare), "10.0.0.2:80")
    assert isinstance(decision, Passthrough)
    assert decision.workload is not None
    assert decision.workload.name == "bare"


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_pod_in_the_mesh_is_dialled_on_its_tunnel_port(node: str) -> None:
    decision = go(mesh(CLIENT, pod("web", "10.0.0.2", node=node)), "10.0.0.2:80")
    assert tunnel(decision) == ("10.0.0.2:15008", "10.0.0.2:80")
    assert isinstance(decision, ToTunnel)
    assert decision.expected == (spiffe("web"),)


def test_the_waypoint_of_the_source_is_unused() -> None:
    source = replace(CLIENT, waypoint=BY_NAME)
    state = mesh(source, pod("web", "10.0.0.2"), GATE_POD, GATE_SERVICE)
    assert tunnel(go(state, "10.0.0.2:80", source))[0] == "10.0.0.2:15008"


@pytest.mark.parametrize("waypoint", [BY_NAME, BY_ADDRESS, GatewayAddress(vip("10.0.0.9"), 15008)])
def test_a_pod_with_a_waypoint_is_reached_through_it(waypoint: GatewayAddress) -> None:
    web = pod("web", "10.0.0.2", "fd00::2", waypoint=waypoint)
    state = mesh(CLIENT, web, GATE_POD, GATE_SERVICE)
    decision = go(state, "10.0.0.2:80")
    assert tunnel(decision) == ("10.0.0.9:15008", "10.0.0.2:80")
    assert isinstance(decision, ToTunnel)
    assert decision.expected == (spiffe("gate"),)
    assert tunnel(go(state, "[fd00::2]:80")) == ("10.0.0.9:15008", "[fd00::2]:80")


def test_the_waypoint_itself_goes_direct() -> None:
    web = pod("web", "10.0.0.2", waypoint=BY_NAME)
    web_service = service("web", "10.1.0.1", waypoint=BY_NAME)
    endpoint = replace(web, services=WEB)
    state = mesh(GATE_POD, GATE_SERVICE, endpoint, web_service)
    assert tunnel(go(state, "10.0.0.2:80", GATE_POD)) == ("10.0.0.2:15008", "10.0.0.2:80")
    assert tunnel(go(state, "10.1.0.1:80", GATE_POD)) == ("10.0.0.2:15008", "10.0.0.2:8080")


def test_a_missing_waypoint_refuses() -> None:
    state = mesh(CLIENT, pod("web", "10.0.0.2", waypoint=BY_NAME))
    assert go(state, "10.0.0.2:80") == Refuse(Reason.WAYPOINT_UNAVAILABLE)


def test_a_vip_with_a_waypoint_keeps_its_address_in_the_authority() -> None:
    state = mesh(CLIENT, service("web", "10.1.0.1", waypoint=BY_NAME), GATE_POD, GATE_SERVICE)
    assert tunnel(go(state, "10.1.0.1:80")) == ("10.0.0.9:15008", "10.1.0.1:80")


def test_weighted_waypoints_are_drawn_by_weight() -> None:
    other = GatewayAddress(vip("10.0.0.8"), 15008)
    weighted = (WeightedWaypoint(BY_NAME, 0), WeightedWaypoint(other, 3))
    web = service("web", "10.1.0.1", weighted_waypoints=weighted)
    state = mesh(CLIENT, web, GATE_POD, GATE_SERVICE, pod("gate2", "10.0.0.8"))
    assert tunnel(go(state, "10.1.0.1:80"))[0] == "10.0.0.8:15008"


def test_a_vip_is_translated_to_an_endpoint_and_its_port() -> None:
    state = mesh(CLIENT, service("web", "10.1.0.1"), pod("web", "10.0.0.2", services=WEB))
    assert tunnel(go(state, "10.1.0.1:80")) == ("10.0.0.2:15008", "10.0.0.2:8080")


def test_a_vip_without_endpoints_refuses() -> None:
    web = service("web", "10.1.0.1")
    assert go(mesh(CLIENT, web), "10.1.0.1:80") == Refuse(Reason.NO_HEALTHY_UPSTREAM, web)
    assert go(mesh(CLIENT, web), "10.1.0.1:81") == Refuse(Reason.NO_SERVICE_PORT, web)


def test_a_named_port_leads_to_the_pod_that_has_it() -> None:
    named = service("web", "10.1.0.1", ports=[Port(80, 0)])
    without = pod("web-1", "10.0.0.2", services=WEB)
    having = pod("web-2", "10.0.0.3", services={key("web"): [Port(80, 9090)]})
    state = mesh(CLIENT, named, without, having)
    assert {tunnel(go(state, "10.1.0.1:80")) for _ in range(8)} == {
        ("10.0.0.3:15008", "10.0.0.3:9090")
    }


def test_host_network_pods_are_told_apart_by_service_only() -> None:
    host = {"network_mode": NetworkMode.HOST_NETWORK, "tunnel_protocol": TunnelProtocol.NONE}
    one = pod("one", "192.168.0.1", services=WEB, **host)
    two = pod("two", "192.168.0.1", **host)
    state = mesh(CLIENT, service("web", "10.1.0.1"), one, two)
    through = go(state, "10.1.0.1:80")
    assert isinstance(through, Passthrough)
    assert through.workload is not None
    assert (through.workload.name, str(through.target)) == ("one", "192.168.0.1:8080")
    assert go(state, "192.168.0.1:80") == Passthrough(parse_endpoint("192.168.0.1:80"))


def test_a_dual_stack_pod_is_dialled_in_the_family_it_was_addressed_in() -> None:
    state = mesh(CLIENT, pod("web", "10.0.0.2", "fd00::2"))
    assert tunnel(go(state, "10.0.0.2:80"))[0] == "10.0.0.2:15008"
    assert tunnel(go(state, "[fd00::2]:80")) == ("[fd00::2]:15008", "[fd00::2]:80")


@pytest.mark.parametrize(
    ("families", "destination", "dialled"),
    [
        (IpFamilies.IPV6_ONLY, "10.1.0.1:80", "[fd00::2]:15008"),
        (IpFamilies.IPV4_ONLY, "[fd01::1]:80", "10.0.0.2:15008"),
        (IpFamilies.DUAL, "10.1.0.1:80", "10.0.0.2:15008"),
        (IpFamilies.DUAL, "[fd01::1]:80", "[fd00::2]:15008"),
        (IpFamilies.AUTOMATIC, "[fd01::1]:80", "[fd00::2]:15008"),
    ],
)
def test_the_service_limits_the_family(
    families: IpFamilies, destination: str, dialled: str
) -> None:
    web = service("web", "10.1.0.1", "fd01::1", ip_families=families)
    state = mesh(CLIENT, web, pod("web", "10.0.0.2", "fd00::2", services=WEB))
    assert tunnel(go(state, destination))[0] == dialled


def test_a_passthrough_service_keeps_the_address() -> None:
    balancing = LoadBalancing((), BalancingMode.PASSTHROUGH, HealthPolicy.ALLOW_ALL)
    outside = service("outside", "10.1.0.1", load_balancing=balancing)
    assert plain(go(mesh(CLIENT, outside), "10.1.0.1:80")) == "10.1.0.1:80"
    behind = replace(outside, waypoint=BY_NAME)
    state = mesh(CLIENT, behind, GATE_POD, GATE_SERVICE)
    assert tunnel(go(state, "10.1.0.1:80")) == ("10.0.0.9:15008", "10.1.0.1:80")


FAR = {
    "network": "far",
    "services": WEB,
    "network_gateway": GatewayAddress(vip("1.2.3.4", "far"), 15009),
}


def test_endpoints_that_are_dns_names_are_refused_by_that_reason() -> None:
    """istiod has them from a ServiceEntry with `resolution: DNS`."""
    web = service("web", "10.1.0.1")
    named = replace(pod("named", services=WEB), hostname="db.example.com", addresses=())
    unsupported = Refuse(Reason.HOSTNAME_UNSUPPORTED, web)
    assert go(mesh(CLIENT, web, named), "10.1.0.1:80") == unsupported
    assert go(mesh(CLIENT, web, named), "10.1.0.1:81") == Refuse(Reason.NO_SERVICE_PORT, web)
    near = pod("near", "10.0.0.2", services=WEB)
    assert tunnel(go(mesh(CLIENT, web, named, near), "10.1.0.1:80"))[0] == "10.0.0.2:15008"
    starting = replace(named, hostname="", status=WorkloadStatus.UNHEALTHY)
    nobody = Refuse(Reason.NO_HEALTHY_UPSTREAM, web)
    assert go(mesh(CLIENT, web, starting), "10.1.0.1:80") == nobody


def test_other_networks() -> None:
    web = service("web", "10.1.0.1")
    near = pod("near", "10.0.0.2", services=WEB)
    sick = replace(near, status=WorkloadStatus.UNHEALTHY)
    far = pod("far", **FAR)
    assert tunnel(go(mesh(CLIENT, web, near, far), "10.1.0.1:80"))[0] == "10.0.0.2:15008"
    unsupported = Refuse(Reason.NETWORK_GATEWAY_UNSUPPORTED, web)
    assert go(mesh(CLIENT, web, sick, far), "10.1.0.1:80") == unsupported
    stranded = replace(far, network_gateway=None)
    nothing = Refuse(Reason.NO_HEALTHY_UPSTREAM, web)
    assert go(mesh(CLIENT, web, stranded), "10.1.0.1:80") == nothing


def test_unhealthy_endpoints_only_where_the_service_says_so() -> None:
    sick = pod("sick", "10.0.0.2", services=WEB, status=WorkloadStatus.UNHEALTHY)
    anyone = LoadBalancing(health_policy=HealthPolicy.ALLOW_ALL)
    picky, lax = service("web", "10.1.0.1"), service("web", "10.1.0.1", load_balancing=anyone)
    assert isinstance(go(mesh(CLIENT, picky, sick), "10.1.0.1:80"), Refuse)
    assert tunnel(go(mesh(CLIENT, lax, sick), "10.1.0.1:80"))[0] == "10.0.0.2:15008"


@pytest.mark.parametrize(
    "destination",
    ["127.0.0.1:15008", "[::1]:15008", "10.0.0.1:15008", "[fd00::1]:15008"],
)
def test_traffic_that_would_come_round_again_is_refused(destination: str) -> None:
    assert go(mesh(CLIENT), destination) == Refuse(Reason.RECURSION)


@pytest.mark.parametrize("port", [15001, 15006, 15020, 15080, 40000])
def test_ports_that_other_meshes_keep_are_an_apps_as_any(port: int) -> None:
    found = mesh(CLIENT, pod("web", "10.0.0.2"))
    assert tunnel(go(found, f"10.0.0.2:{port}"))[1] == f"10.0.0.2:{port}"
    assert not isinstance(go(found, f"10.0.0.1:{port}"), Refuse), "an app of the pod itself"


def test_another_pods_tunnel_port_is_an_ordinary_port() -> None:
    assert tunnel(go(mesh(CLIENT, pod("web", "10.0.0.2")), "10.0.0.2:15008"))[1] == "10.0.0.2:15008"


NETWORK_REGION_ZONE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


@pytest.mark.parametrize(
    ("mode", "network", "locality", "expected"),
    [
        (BalancingMode.STRICT, "", Locality("r", "z"), {"same-zone"}),
        (BalancingMode.STRICT, "other", Locality("x", "y"), set()),
        (BalancingMode.FAILOVER, "", Locality("r", "z"), {"same-zone"}),
        (BalancingMode.FAILOVER, "", Locality("r", "elsewhere"), {"same-zone", "same-region"}),
        (BalancingMode.FAILOVER, "other", Locality("x", "y"),
         {"same-zone", "same-region", "any", "remote-zone"}),
        (BalancingMode.FAILOVER, "other", Locality("r", "z"), {"same-zone", "remote-zone"}),
        (BalancingMode.UNSPECIFIED, "", Locality("r", "z"),
         {"same-zone", "same-region", "any", "remote-zone"}),
    ],
)  # fmt: skip
def test_locality(
    mode: BalancingMode, network: str, locality: Locality, expected: set[str]
) -> None:
    gateway = GatewayAddress(vip("1.2.3.4"), 15009)
    endpoints = [
        pod("same-zone", "10.0.0.2", locality=Locality("r", "z"), network_gateway=gateway),
        pod("same-region", "10.0.0.3", locality=Locality("r", "z2"), network_gateway=gateway),
        pod("any", "10.0.0.4", locality=Locality("q", "z3"), network_gateway=gateway),
        pod("remote-zone", network="far", locality=Locality("r", "z"), network_gateway=gateway),
    ]
    source = replace(CLIENT, network=network, locality=locality)
    balancing = LoadBalancing(NETWORK_REGION_ZONE, mode)
    web = service("web", "10.1.0.1", load_balancing=balancing)
    state = mesh(web, *(replace(each, services=WEB) for each in endpoints))
    lots = candidates(web, state.endpoints(web.key), source, 80, 4)
    found = nearest(lots, source, balancing)
    assert {uid.rpartition("/")[2] for each in found for uid in each.uids} == expected


def test_capacity_is_the_weight() -> None:
    state = mesh(
        CLIENT,
        service("web", "10.1.0.1"),
        pod("big", "10.0.0.2", services=WEB, capacity=9),
        pod("small", "10.0.0.3", services=WEB, capacity=1),
        pod("none", "10.0.0.4", services=WEB, capacity=0),
    )
    rng = random.Random(1)
    destination = parse_endpoint("10.1.0.1:80")
    dialled = [tunnel(route(state, CLIENT, destination, rng))[0] for _ in range(400)]
    assert 320 < dialled.count("10.0.0.2:15008") < 390
    assert dialled.count("10.0.0.4:15008") == 0


def test_a_private_service_is_invisible_from_other_namespaces() -> None:
    state = mesh(
        service("web", "10.1.0.1", visibility=Visibility.NAMESPACE),
        pod("web", "10.0.0.2", services=WEB),
    )
    assert isinstance(go(state, "10.1.0.1:80"), ToTunnel)
    stranger = replace(CLIENT, namespace="other")
    assert isinstance(go(state, "10.1.0.1:80", stranger), Passthrough)


def test_the_service_may_vouch_for_more_names() -> None:
    names = ("spiffe://cluster.local/ns/shop/sa/alias", "dns.example", "spiffe://bad")
    web = service("web", subject_alt_names=names)
    assert expected_identities(pod("web"), web) == (spiffe("web"), spiffe("alias"))


def test_a_mapped_address_is_the_ipv4_one() -> None:
    assert at("::ffff:10.0.0.2") == at("10.0.0.2")


def test_a_remembered_choice_ends_with_the_next_change() -> None:
    one, two = pod("one", "10.0.0.2", services=WEB), pod("two", "10.0.0.3", services=WEB)
    state = mesh(CLIENT, service("web", "10.1.0.1"), one)
    assert tunnel(go(state, "10.1.0.1:80"))[0] == "10.0.0.2:15008"
    state.apply([entry(replace(one, status=WorkloadStatus.UNHEALTHY)), entry(two)])
    assert tunnel(go(state, "10.1.0.1:80"))[0] == "10.0.0.3:15008"
    elsewhere = replace(CLIENT, network="far")
    assert isinstance(go(state, "10.1.0.1:80", elsewhere), Passthrough)


@pytest.mark.parametrize(
    ("hint", "there", "dialled"),
    [
        (Hint.NONE, True, {"near", "far", "plain-near"}),
        (Hint.LOCAL, True, {"near"}),
        (Hint.ELSEWHERE, True, {"far", "plain-near"}),
        (Hint.LOCAL, False, {"far", "plain-near"}),
    ],
)
def test_the_kernels_draw_narrows_the_choice_if_that_leaves_any(
    hint: Hint, there: bool, dialled: set[str]
) -> None:
    plain = pod(
        "plain-near", "10.0.0.5", node="n1", services=WEB, tunnel_protocol=TunnelProtocol.NONE
    )
    near = [pod("near", "10.0.0.2", node="n1", services=WEB)] if there else []
    far = pod("far", "10.0.0.3", node="n2", services=WEB)
    state = mesh(CLIENT, service("web", "10.1.0.1"), plain, *near, far)
    rng, asked = random.Random(3), parse_endpoint("10.1.0.1:80")
    found = {
        decision.workload.name
        for _ in range(60)
        if isinstance(decision := route(state, CLIENT, asked, rng, hint), ToTunnel | Passthrough)
        and decision.workload is not None
    }
    assert found == dialled


def test_a_hint_opens_no_other_way() -> None:
    web = service("web", "10.1.0.1", waypoint=BY_NAME)
    near = pod("near", "10.0.0.2", node="n1", services=WEB)
    state = mesh(CLIENT, web, near, GATE_POD, GATE_SERVICE)
    decision = route(state, CLIENT, parse_endpoint("10.1.0.1:80"), random.Random(3), Hint.LOCAL)
    assert tunnel(decision) == ("10.0.0.9:15008", "10.1.0.1:80")
    assert plain(route(state, CLIENT, parse_endpoint("9.9.9.9:1"), random.Random(3), Hint.LOCAL))
