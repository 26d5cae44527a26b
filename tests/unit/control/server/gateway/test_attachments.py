"""Routes at the services that they name."""

from __future__ import annotations

from tests.support.gateways import Bench, gateway, route, service

WEB = gateway() + service("web", labels="istio.io/use-waypoint: way")


def test_a_status_says_which_text_it_is_about_and_what_came_of_it() -> None:
    text = route("rules: [{}, {matches: [{method: GET}]}]").replace("{name: route,", META)
    bench = Bench(WEB + text)
    status = bench.status()
    assert (status.generation, status.rules, status.line > 0) == (7, 2, True)
    assert status.parent.ref.name == "web"


META = "{name: route, generation: 7,"


def test_only_news_about_a_route_makes_its_rules_anew() -> None:
    bench = Bench(WEB + service("db") + route("rules: [{backendRefs: [{name: db, port: 80}]}]"))
    before = bench.front().rules
    bench.put(service("else"))
    assert bench.front().rules is before


def test_a_service_that_goes_leaves_the_route_without_a_parent() -> None:
    bench = Bench(WEB + route("rules: [{}]"))
    bench.drop("Service", "web")
    assert bench.status().accepted.reason == "NoMatchingParent"
    assert bench.waypoint().fronts == {}


def test_a_route_for_calls_attaches_like_any_other() -> None:
    text = "rules: [{matches: [{method: {service: a.B}}], backendRefs: [{name: web, port: 80}]}]"
    grpc = route(text, "calls").replace("HTTPRoute", "GRPCRoute")
    bench = Bench(WEB + route("rules: [{}]") + grpc)
    assert [each.match.path for each in bench.front().rules or ()] == ["/a.B", "/"]
    kinds = [each.route.kind for each in bench.gateways.statuses if each.accepted.is_true]
    assert kinds == ["GRPCRoute", "HTTPRoute"]
    bench.drop("GRPCRoute", "calls")
    assert [each.match.path for each in bench.front().rules or ()] == ["/"]
