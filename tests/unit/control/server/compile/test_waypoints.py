"""Services and pods behind waypoints, as labels ask for it."""

from __future__ import annotations

import pytest

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.policy import Connection, Deny, Permit, decide
from control.model.workload import GatewayAddress, NamespacedHostname, TunnelProtocol
from control.server.compile.mesh import CompiledMesh
from control.server.compile.waypoints import WAYPOINT_MISSING, WAYPOINT_UNUSED
from tests.support.gateways import Bench, gateway, namespace, service
from tests.support.manifests import mesh, pod
from tests.support.mesh_worlds import slice_of

USE = "istio.io/use-waypoint: way"
NONE = "istio.io/use-waypoint: none"
WEB = "shop/web.shop.svc.cluster.local"
POD = "Kubernetes//Pod/shop/web"
WAY = GatewayAddress(NamespacedHostname("shop", "way.shop.svc.cluster.local"), 15008)
POLICY = "istio-system/only_by_waypoint_shop_way"
WAY_POD = pod(
    "way-1",
    labels="gateway.networking.k8s.io/gateway-name: way, app: way",
    spec="serviceAccountName: way",
    address="10.1.0.9",
)
WEB_POD = pod(labels="app: web")


def notes(found: CompiledMesh) -> list[tuple[str, str]]:
    return [(each.object, each.reason) for each in found.notes]


@pytest.mark.parametrize(
    ("space", "own", "uses"),
    [
        ("", "", False),
        (USE, "", True),
        ("", USE, True),
        (USE, NONE, False),
        (NONE, USE, True),
        (USE, "istio.io/use-waypoint: other", False),
        ("istio.io/use-waypoint: other", USE, True),
    ],
)
def test_a_service_uses_what_its_label_says_or_else_its_namespace(
    space: str, own: str, uses: bool
) -> None:
    found = mesh(namespace(space) + gateway() + service("web", labels=own) + WEB_POD)
    assert (found.services[WEB].waypoint == WAY) == uses
    assert (POLICY in found.workloads[POD].authorization_policies) == uses
    assert (POLICY in found.policies) == uses


def test_a_waypoint_may_be_of_another_namespace_and_that_has_to_allow_it() -> None:
    label = f"{USE}, istio.io/use-waypoint-namespace: infra"
    for allowed, said in (
        ("", [("Service shop/web", WAYPOINT_MISSING)]),
        ("from: All", []),
        ("from: Selector, selector: {matchLabels: {team: a}}", []),
        ("from: Selector, selector: {matchLabels: {team: b}}",
         [("Service shop/web", WAYPOINT_MISSING)]),
    ):  # fmt: skip
        text = namespace("team: a") + gateway(namespace="infra", allowed=allowed)
        found = mesh(text + service("web", labels=label))
        assert found.services[WEB].waypoint == GatewayAddress(
            NamespacedHostname("infra", "way.infra.svc.cluster.local"), 15008
        )
        assert notes(found) == said


@pytest.mark.parametrize(
    "instead", ["", gateway(class_name="nginx"), gateway(port=15021), gateway(protocol="HTTP")]
)
def test_a_name_that_no_waypoint_has_closes_the_service(instead: str) -> None:
    found = mesh(instead + service("web", labels=USE) + WEB_POD)
    assert found.services[WEB].waypoint == WAY
    assert POLICY in found.workloads[POD].authorization_policies
    assert notes(found) == [("Service shop/web", WAYPOINT_MISSING)]


@pytest.mark.parametrize(
    ("traffic", "for_service", "for_pod"),
    [
        ("", True, False),
        ("service", True, False),
        ("workload", False, True),
        ("all", True, True),
        ("none", False, False),
        ("servces", True, False),  # a slip opens nothing
    ],
)
def test_a_waypoint_says_for_whom_it_is(traffic: str, for_service: bool, for_pod: bool) -> None:
    found = mesh(namespace(USE) + gateway(traffic=traffic) + service("web") + WEB_POD)
    assert (found.services[WEB].waypoint is not None) == for_service
    assert (found.workloads[POD].waypoint == WAY) == for_pod
    assert (POLICY in found.workloads[POD].authorization_policies) == for_service


def test_a_pod_with_a_waypoint_of_its_own_is_left_to_it_unless_services_lead_past() -> None:
    text = namespace(USE) + gateway(traffic="workload") + WEB_POD
    assert POLICY in mesh(text).workloads[POD].authorization_policies
    assert POLICY not in mesh(text + service("web")).workloads[POD].authorization_policies


def test_an_own_label_that_has_no_effect_is_told() -> None:
    for text in (gateway(traffic="workload") + service("web", labels=USE),
                 gateway() + service("web", labels=USE, cluster_ip="None")):  # fmt: skip
        found = mesh(text + WEB_POD)
        assert found.services[WEB].waypoint is None
        assert found.workloads[POD].authorization_policies == ()
        assert notes(found) == [("Service shop/web", WAYPOINT_UNUSED)]


def test_a_waypoints_own_pods_take_tunnels_uncaptured_and_are_behind_nothing() -> None:
    text = namespace(f"istio.io/dataplane-mode: ambient, {USE}") + gateway(traffic="all")
    text += service("way", port=15008, name="hbone") + WAY_POD + WEB_POD
    found = mesh(text)
    way = found.workloads["Kubernetes//Pod/shop/way-1"]
    assert way.tunnel_protocol is TunnelProtocol.HBONE
    assert (way.waypoint, way.authorization_policies) == (None, ())
    assert found.services["shop/way.shop.svc.cluster.local"].waypoint is None
    intents = {each.name: (each.enrolled, each.reason) for each in found.pods.values()}
    assert intents["way-1"] == (False, "waypoint")
    assert intents["web"][0]


def test_a_pod_on_the_hosts_network_is_never_behind_one() -> None:
    text = (
        namespace(USE) + gateway(traffic="all") + pod(spec="hostNetwork: true", labels="app: web")
    )
    (found,) = mesh(text + service("web")).workloads.values()
    assert (found.waypoint, found.authorization_policies) == (None, ())


def test_a_pod_that_only_bears_the_label_is_captured_as_any_other() -> None:
    text = namespace("istio.io/dataplane-mode: ambient") + gateway()
    found = mesh(text + WAY_POD.replace("serviceAccountName: way", "serviceAccountName: web"))
    (intent,) = found.pods.values()
    assert intent.enrolled


def test_only_its_waypoints_reach_a_pod() -> None:
    text = gateway() + gateway("gate") + WEB_POD + service("web", labels=USE)
    text += service("also", labels="istio.io/use-waypoint: gate", selector="app: web")
    found = mesh(text)
    (name,) = found.workloads[POD].authorization_policies
    policy = found.policies[name]
    here = parse_address("10.1.0.1")
    for account, is_let_in in (("way", True), ("gate", True), ("web", False), (None, False)):
        source = None if account is None else SpiffeId("cluster.local", "shop", account)
        verdict = decide([policy], Connection(source, here, here, 80))
        assert isinstance(verdict, Permit if is_let_in else Deny)
    stranger = SpiffeId("cluster.local", "other", "way")
    assert isinstance(decide([policy], Connection(stranger, here, here, 80)), Deny)


def test_a_mesh_that_is_leaving_has_no_waypoints() -> None:
    found = mesh(gateway() + service("web", labels=USE) + WEB_POD, release_all=True)
    assert found.services[WEB].waypoint is None
    assert found.policies == {}
    assert notes(found) == []


def test_a_pod_that_a_slice_names_by_its_address_is_enclosed_as_the_service_changes() -> None:
    bench = Bench(gateway() + service("web") + pod("a", labels="app: a"))
    bench.put(slice_of("s", "{addresses: [10.1.0.1]}"))
    for labels, policies in ((USE, (POLICY,)), ("", ())):
        bench.put(service("web", labels=labels))
        assert bench.mesh.workloads["Kubernetes//Pod/shop/a"].authorization_policies == policies
