"""Fronts of pods that are dialled by their own addresses."""

from __future__ import annotations

import pytest

from control.model.address import parse_address
from control.model.route import Layer, WaypointKey
from control.server.gateway.pods import PORTS_MAX
from tests.support.gateways import Bench, gateway, namespace, service
from tests.support.manifests import pod, policy

USE = "istio.io/use-waypoint: way"
PORTS = "containers: [{name: c, ports: [{name: http-a, containerPort: 81}, {containerPort: 82}]}]"
WEB = gateway(traffic="all") + pod("web", labels=f"app: web, {USE}", spec=PORTS)
WAY = WaypointKey("shop", "way")


def ports(bench: Bench) -> dict[str, Layer]:
    return {name: each.layer for name, each in bench.waypoint().fronts.items()}


def test_each_port_that_is_declared_or_that_a_service_leads_to_has_a_front() -> None:
    bench = Bench(WEB + service("web"))
    assert ports(bench) == {
        "shop/web.pod:81": Layer.HTTP,
        "shop/web.pod:82": Layer.TCP,
        "shop/web.pod:8080": Layer.TCP,
    }
    front = bench.front("shop/web.pod:81")
    assert front.addresses == (parse_address("10.1.0.1"),)
    assert (front.port, front.service, front.hostname) == (81, "", "")
    (endpoint,) = bench.waypoint().backends["shop/web.pod:81"].endpoints
    assert (endpoint.address, endpoint.port) == (parse_address("10.1.0.1"), 81)


@pytest.mark.parametrize("traffic", ["", "service", "none"])
def test_a_waypoint_for_services_has_none(traffic: str) -> None:
    bench = Bench(WEB.replace("waypoint-for: all", f"waypoint-for: '{traffic}'"))
    assert ports(bench) == {}


def test_they_come_and_go_with_the_label_and_the_pod() -> None:
    bench = Bench(gateway(traffic="workload") + namespace() + pod("web", spec=PORTS))
    assert ports(bench) == {}
    bench.put(namespace(USE))
    assert list(ports(bench)) == ["shop/web.pod:81", "shop/web.pod:82"]
    moved = bench.put(pod("web", spec=PORTS, address="10.1.0.2"))[WAY]
    assert list(moved.fronts) == list(moved.backends) == ["shop/web.pod:81", "shop/web.pod:82"]
    bench.put(pod("web", spec=PORTS.replace("81", "83"), address="10.1.0.2"))
    assert list(ports(bench)) == ["shop/web.pod:82", "shop/web.pod:83"]
    bench.drop("Pod", "web")
    assert ports(bench) == bench.waypoint().backends == {}


def test_policies_for_the_waypoint_stand_there_too() -> None:
    bench = Bench(WEB)
    way = "{group: gateway.networking.k8s.io, kind: Gateway, name: way}"
    bench.put(policy(f"{{targetRefs: [{way}]}}"))
    assert [each.name for each in bench.front("shop/web.pod:81").policies] == ["shop/p"]
    bench.drop("AuthorizationPolicy", "p")
    assert bench.front("shop/web.pod:81").policies == ()


def test_a_waypoint_of_another_class_enforces_the_policies_of_that_class() -> None:
    kind = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: istio-waypoint}"
    bench = Bench(WEB + policy(f"{{targetRefs: [{kind}]}}", namespace="istio-system"))
    assert bench.front("shop/web.pod:81").policies == ()
    bench.put(gateway(traffic="all", class_name="istio-waypoint"))
    assert bench.front("shop/web.pod:81").policies != ()


def test_the_lowest_ports_of_very_many() -> None:
    several = ", ".join(f"{{containerPort: {at}}}" for at in range(1, PORTS_MAX + 9))
    text = pod("web", labels=USE, spec=f"containers: [{{name: c, ports: [{several}]}}]")
    assert len(ports(Bench(gateway(traffic="all") + text))) == PORTS_MAX
