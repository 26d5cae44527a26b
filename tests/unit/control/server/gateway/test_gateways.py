"""Fronts and backends of waypoints, as objects come, change and go."""

from __future__ import annotations

import pytest

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.route import BackendEndpoint, Layer, Spoken, WaypointKey
from control.model.workload import Locality
from control.server.compile.pods import pod_uid
from tests.support.gateways import Bench, gateway, namespace, route, service
from tests.support.manifests import objects, pod, policy

USE = "istio.io/use-waypoint: way"
WAY = WaypointKey("shop", "way")
BASE = gateway() + service("web", labels=USE)
WEB = pod(labels="app: web")
TO_DB = "rules: [{backendRefs: [{name: db, port: 80}]}]"


def test_a_waypoint_has_a_front_and_a_backend_for_each_port_of_its_services() -> None:
    bench = Bench(BASE + WEB)
    found = bench.waypoint()
    assert found.account == SpiffeId("cluster.local", "shop", "way")
    (front,) = found.fronts.values()
    assert (front.name, front.hostname, front.port) == (
        "shop/web:80",
        "web.shop.svc.cluster.local",
        80,
    )
    assert (front.layer, front.rules, front.backend) == (Layer.HTTP, None, "shop/web:80")
    assert len(front.addresses) == 1
    (backend,) = found.backends.values()
    assert backend.spoken is Spoken.HTTP1
    assert backend.endpoints == (
        BackendEndpoint(parse_address("10.1.0.1"), 8080, None, Locality()),
    )


def test_a_captured_pod_is_known_by_its_identity() -> None:
    text = pod(labels="app: web", spec="serviceAccountName: w")
    uid = pod_uid(objects(text).pods[0].meta)
    bench = Bench(BASE + text, frozenset({uid}))
    (backend,) = bench.waypoint().backends.values()
    assert backend.endpoints[0].identity == SpiffeId("cluster.local", "shop", "w")


@pytest.mark.parametrize(
    ("name", "layer", "spoken"),
    [
        ("http", Layer.HTTP, Spoken.HTTP1),
        ("grpc-x", Layer.HTTP, Spoken.HTTP2),
        ("http2", Layer.HTTP, Spoken.HTTP2),
        ("tcp", Layer.TCP, Spoken.TCP),
        ("https", Layer.TCP, Spoken.TCP),
        ("any", Layer.TCP, Spoken.ANY),
    ],
)
def test_a_port_is_what_it_says_and_nobody_sniffs(name: str, layer: Layer, spoken: Spoken) -> None:
    bench = Bench(gateway() + service("web", labels=USE, name=name))
    assert bench.front().layer is layer
    assert bench.waypoint().backends["shop/web:80"].spoken is spoken


def test_a_route_makes_http_of_a_port_that_says_nothing() -> None:
    bench = Bench(gateway() + service("web", labels=USE, name="any") + route("rules: []"))
    assert bench.front().layer is Layer.HTTP
    assert bench.front().rules == ()
    bench.drop("HTTPRoute", "route")
    assert bench.front().layer is Layer.TCP
    assert bench.front().rules is None


def test_a_backend_stays_as_long_as_somebody_needs_it() -> None:
    bench = Bench(BASE + service("db") + route(TO_DB) + pod("db", labels="app: db"))
    assert list(bench.waypoint().backends) == ["shop/db:80"]
    delta = bench.put(route("rules: [{backendRefs: [{name: web, port: 80}]}]"))[WAY]
    assert delta.backends["shop/db:80"] is None
    assert list(bench.waypoint().backends) == ["shop/web:80"]


def test_a_pods_change_costs_its_services_backends_alone() -> None:
    bench = Bench(BASE + service("db", labels=USE) + WEB + pod("db", labels="app: db"))
    delta = bench.put(pod(labels="app: web", address="10.1.0.7"))[WAY]
    assert (list(delta.fronts), list(delta.backends)) == ([], ["shop/web:80"])
    assert bench.put(pod("else", labels="app: other")) == {}


def test_a_backend_that_comes_later_is_found() -> None:
    bench = Bench(BASE + route(TO_DB))
    assert [each.backend for each in bench.front().rules[0].destinations] == [""]
    assert bench.status().resolved.reason == "BackendNotFound"
    bench.put(service("db"))
    assert [each.backend for each in bench.front().rules[0].destinations] == ["shop/db:80"]
    assert bench.status().resolved.is_true
    bench.drop("Service", "db")
    assert [each.backend for each in bench.front().rules[0].destinations] == [""]


def test_a_waypoint_comes_and_goes() -> None:
    bench = Bench(service("web", labels=USE) + route(TO_DB))
    assert bench.deltas == {}
    assert bench.status().accepted.reason == "Pending"
    bench.put(gateway())
    assert list(bench.deltas[WAY].fronts) == ["shop/web:80"]
    assert bench.status().accepted.is_true
    bench.drop("Gateway", "way")
    assert bench.deltas[WAY].is_gone
    assert bench.gateways.waypoints == {}
    bench.put(gateway())
    assert list(bench.deltas[WAY].fronts) == ["shop/web:80"]


def test_an_idle_waypoint_is_told_of_once() -> None:
    bench = Bench(gateway())
    assert not bench.deltas[WAY].is_gone
    assert bench.put(pod("else")) == {}


def test_a_service_may_change_its_waypoint() -> None:
    bench = Bench(BASE + gateway("gate") + WEB)
    bench.put(service("web", labels="istio.io/use-waypoint: gate"))
    assert bench.deltas[WAY].fronts == {"shop/web:80": None}
    assert bench.deltas[WAY].backends == {"shop/web:80": None}
    assert bench.front(waypoint="gate").port == 80
    assert list(bench.waypoint("gate").backends) == ["shop/web:80"]


def test_a_namespace_that_is_not_allowed_has_no_front_until_it_is() -> None:
    label = f"{USE}, istio.io/use-waypoint-namespace: infra"
    allowed = "from: Selector, selector: {matchLabels: {team: a}}"
    bench = Bench(
        namespace() + gateway(namespace="infra", allowed=allowed) + service("web", labels=label)
    )
    assert bench.waypoint(namespace="infra").fronts == {}
    bench.put(namespace("team: a"))
    assert list(bench.waypoint(namespace="infra").fronts) == ["shop/web:80"]


@pytest.mark.parametrize(
    "target",
    [
        "targetRefs: [{kind: Service, name: web}]",
        "targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: way}]",
    ],
)
def test_a_policy_stands_at_the_fronts_that_it_is_for(target: str) -> None:
    bench = Bench(BASE + service("db", labels=USE))
    bench.put(policy(f"{{{target}, rules: [{{to: [{{operation: {{methods: [GET]}}}}]}}]}}"))
    assert [each.name for each in bench.front().policies] == ["shop/p"]
    is_for_all = "Gateway" in target
    assert bool(bench.front("shop/db:80").policies) == is_for_all
    bench.drop("AuthorizationPolicy", "p")
    assert bench.front().policies == ()


def test_a_policy_for_a_class_stands_in_the_root_namespace() -> None:
    target = "{group: gateway.networking.k8s.io, kind: GatewayClass, name: tulle-waypoint}"
    bench = Bench(BASE + policy(f"{{targetRefs: [{target}]}}"))
    assert bench.front().policies == ()
    bench.put(policy(f"{{targetRefs: [{target}]}}", namespace="istio-system"))
    assert [each.name for each in bench.front().policies] == ["istio-system/p"]
