"""Backends that routes name, with the API's reasons where they cannot be had."""

from __future__ import annotations

import pytest

from tests.support.gateways import Bench, gateway, grant, route, service

WEB = gateway() + service("web", labels="istio.io/use-waypoint: way")
CORS = "{type: CORS, cors: {}}"


@pytest.mark.parametrize(
    ("backend", "more", "name", "reason"),
    [
        ("{name: web, port: 80}", "", "shop/web:80", "ResolvedRefs"),
        ("{name: web, port: 81}", "", "", "BackendNotFound"),
        ("{name: gone, port: 80}", "", "", "BackendNotFound"),
        ("{name: db, namespace: mine, port: 80}", "", "", "RefNotPermitted"),
        (
            "{name: db, namespace: mine, port: 80}",
            grant("mine", "shop"),
            "mine/db:80",
            "ResolvedRefs",
        ),
        ("{name: gone, namespace: mine, port: 80}", grant("mine", "shop"), "", "BackendNotFound"),
        ("{name: a, group: x.io, kind: Import}", "", "", "InvalidKind"),
        (f"{{name: web, port: 80, filters: [{CORS}]}}", "", "", "UnsupportedValue"),
    ],
)
def test_backends(backend: str, more: str, name: str, reason: str) -> None:
    text = WEB + service("db", "mine") + more
    bench = Bench(text + route(f"rules: [{{backendRefs: [{backend}]}}]"))
    (rule,) = bench.front().rules or ()
    assert [each.backend for each in rule.destinations] == [name]
    assert bench.status().resolved.reason == reason
    assert bench.status().resolved.is_true == bool(name)
    assert bench.status().accepted.is_true, "the route is in force all the same"


def test_a_grant_that_goes_takes_its_backends_along() -> None:
    to = "rules: [{backendRefs: [{name: db, namespace: mine, port: 80}]}]"
    bench = Bench(WEB + service("db", "mine") + grant("mine", "shop") + route(to))
    assert "mine/db:80" in bench.waypoint().backends
    bench.drop("ReferenceGrant", "grant", "mine")
    assert bench.waypoint().backends == {}
    (rule,) = bench.front().rules or ()
    assert [each.backend for each in rule.destinations] == [""]
