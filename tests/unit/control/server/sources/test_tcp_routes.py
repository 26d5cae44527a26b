"""TCPRoutes: backends and their weights."""

from __future__ import annotations

import pytest

from tests.support.gateways import route
from tests.support.manifests import load, objects

BACKENDS = "backendRefs: [{name: a, port: 1, weight: 3}, {name: b, port: 2}]"


def tcp(spec: str) -> str:
    return route(spec).replace("HTTPRoute", "TCPRoute")


@pytest.mark.parametrize("version", ["v1", "v1alpha2"])
def test_backends_are_read(version: str) -> None:
    text = tcp(f"rules: [{{{BACKENDS}}}]").replace("io/v1", f"io/{version}")
    (rule,) = objects(text).tcp_routes[0].spec.rules
    assert [(each.ref.name, each.weight) for each in rule.backends] == [("a", 3), ("b", 1)]


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (f"rules: [{{{BACKENDS}}}, {{}}]", "only one could ever be taken"),
        ("rules: [{matches: []}]", "unknown field spec.rules[0].matches"),
        ("rules: [], hostnames: [a]", "a connection has none"),
        (
            "rules: [{backendRefs: [{name: a, port: 1, filters: [{type: ExtensionRef}]}]}]",
            "a connection has nothing to change",
        ),
    ],
)
def test_a_field_that_means_nothing_to_connections_is_named(spec: str, said: str) -> None:
    found = load(tcp(spec))
    assert found.objects.tcp_routes == ()
    assert said in found.problems[0].message
