"""Rules of routes, flattened into one for each match."""

from __future__ import annotations

from control.model.route import HttpRule, Mirror
from tests.support.gateways import Bench, gateway, route, service

WEB = gateway() + service("web", labels="istio.io/use-waypoint: way") + service("db")


def rules(*routes: str) -> tuple[HttpRule, ...]:
    found = Bench(WEB + "".join(routes)).front().rules
    assert found is not None
    return found


def test_each_match_is_a_rule_named_by_its_place() -> None:
    found = rules(
        route(
            "rules: [{name: one, matches: [{path: {value: /a}}, {path: {value: /b}}]},"
            " {matches: [{path: {value: /long}}]}]"
        )
    )
    assert [(each.name, each.match.path) for each in found] == [
        ("shop/route/1/0", "/long"),
        ("shop/route/one/0", "/a"),
        ("shop/route/one/1", "/b"),
    ]


def test_the_same_match_twice_counts_once() -> None:
    assert len(rules(route("rules: [{matches: [{}, {}, {path: {value: /}}]}]"))) == 1


def test_weights() -> None:
    (found,) = rules(
        route(
            "rules: [{backendRefs: [{name: web, port: 80, weight: 9}, {name: db, port: 80},"
            " {name: gone, port: 80, weight: 2}, {name: off, port: 80, weight: 0}]}]"
        )
    )
    assert [(each.backend, each.weight) for each in found.destinations] == [
        ("shop/web:80", 9),
        ("shop/db:80", 1),
        ("", 2),
    ]


def test_no_backend_and_no_redirect_has_nowhere_to_go() -> None:
    for text in ("rules: [{}]", "rules: [{backendRefs: [{name: db, port: 80, weight: 0}]}]"):
        (found,) = rules(route(text))
        assert (found.destinations, found.redirect) == ((), None)


def test_a_rule_with_a_filter_that_we_cannot_do_is_closed() -> None:
    text = (
        "rules: [{filters: [{type: ExtensionRef}, {type: CORS, cors: {}}],"
        " backendRefs: [{name: db, port: 80}]}, {matches: [{method: GET}],"
        " backendRefs: [{name: db, port: 80}]}]"
    )
    bench = Bench(WEB + route(text))
    first, second = bench.front().rules or ()
    assert first.destinations
    assert (second.destinations, second.cors, second.name) == ((), None, "shop/route/0/0")
    assert bench.status().resolved.reason == "UnsupportedValue"
    assert "ExtensionRef" in bench.status().resolved.message


def test_a_mirror_that_cannot_be_had_is_left_out() -> None:
    mirror = "{type: RequestMirror, requestMirror: {backendRef: {name: %s, port: 80}, percent: 50}}"
    (found,) = rules(route(f"rules: [{{filters: [{mirror % 'db'}, {mirror % 'gone'}]}}]"))
    assert found.mirrors == (Mirror("shop/db:80", 0.5),)


def test_routes_of_one_service_are_tried_in_one_order() -> None:
    young = route("rules: [{}]", "a", created="2026-01-02T00:00:00Z")
    old = route("rules: [{}]", "b", created="2026-01-01T00:00:00Z")
    exact = route("rules: [{matches: [{path: {type: Exact, value: /x}}]}]", "c")
    names = [each.name for each in rules(young, old, exact)]
    assert names == ["shop/c/0/0", "shop/b/0/0", "shop/a/0/0"]


def test_hostnames_say_nothing_about_clients_of_a_service() -> None:
    (found,) = rules(route("hostnames: [a.example], rules: [{}]"))
    assert found.hosts == ()
