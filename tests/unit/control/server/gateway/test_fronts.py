"""Fronts of a service: addresses, and room for rules."""

from __future__ import annotations

from control.model.address import format_address
from control.model.route import Destination, Layer
from control.server.gateway.fronts import RULES_MAX
from tests.support.gateways import Bench, gateway, route, service

USE = "istio.io/use-waypoint: way"
WEB = gateway() + service("web", labels=USE)


def test_outer_addresses_lead_to_their_ports_alone() -> None:
    text = WEB.replace("clusterIP:", "externalIPs: [192.0.2.1], clusterIP:")
    bench = Bench(text)
    shown = [format_address(each) for each in bench.front().addresses]
    assert "192.0.2.1" in shown
    assert len(shown) == 2


def test_routes_that_were_there_first_have_room() -> None:
    matches = ", ".join(f"{{path: {{value: /p{at}}}}}" for at in range(64))
    full = f"rules: [{{matches: [{matches}]}}, {{matches: [{matches.replace('/p', '/q')}]}}]"
    count = RULES_MAX // 128
    routes = [
        route(full, f"r{at}", created=f"2026-01-01T00:00:{at:02}Z") for at in range(count + 1)
    ]
    bench = Bench(WEB + "".join(routes))
    assert len(bench.front().rules or ()) == RULES_MAX
    assert bench.status(f"r{count}").accepted.reason == "TooManyMatches"
    assert bench.status("r0").accepted.is_true
    bench.drop("HTTPRoute", "r0")
    assert bench.status(f"r{count}").accepted.is_true
    assert len(bench.front().rules or ()) == RULES_MAX


def tcp(name: str, created: str, backend: str = "db") -> str:
    spec = f"rules: [{{backendRefs: [{{name: {backend}, port: 80}}]}}]"
    text = route(spec, name, created=f"2026-01-0{created}T00:00:00Z")
    return text.replace("HTTPRoute", "TCPRoute")


def test_the_oldest_route_has_the_connections_of_a_port_and_http_goes_first() -> None:
    text = gateway() + service("web", labels=USE, name="any") + service("db") + service("new")
    bench = Bench(text + tcp("young", "2", "new") + tcp("old", "1"))
    front = bench.front()
    assert (front.layer, front.rules) == (Layer.TCP, None)
    assert front.destinations == (Destination("shop/db:80"),)
    assert list(bench.waypoint().backends) == ["shop/db:80"]
    reasons = {each.route.name: each.accepted.reason for each in bench.gateways.statuses}
    assert reasons == {"old": "Accepted", "young": "Conflicted"}
    bench.put(route("rules: [{}]", "http"))
    front = bench.front()
    assert (front.layer, front.destinations, len(front.rules or ())) == (Layer.HTTP, None, 1)
    reasons = {each.route.name: each.accepted.reason for each in bench.gateways.statuses}
    assert reasons == {"old": "Conflicted", "young": "Conflicted", "http": "Accepted"}
    bench.drop("HTTPRoute", "http")
    bench.drop("TCPRoute", "old")
    assert bench.front().destinations == (Destination("shop/new:80"),)


def test_a_port_that_says_http_is_no_tcp_routes() -> None:
    bench = Bench(WEB + service("db") + tcp("old", "1"))
    assert bench.front().layer is Layer.HTTP
    (status,) = bench.gateways.statuses
    assert status.accepted.reason == "NoMatchingParent"


def test_a_route_whose_backends_cannot_be_had_closes_the_port() -> None:
    bench = Bench(gateway() + service("web", labels=USE, name="tcp") + tcp("old", "1", "gone"))
    assert bench.front().destinations == (Destination(""),)
