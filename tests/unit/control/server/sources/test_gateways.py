"""Gateways of our classes and grants are read whole; other people's Gateways by their class."""

from __future__ import annotations

import pytest

from control.server.sources.route_specs import Expression, GatewayListener, GrantFrom, GrantTo
from tests.support.gateways import gateway, grant
from tests.support.manifests import load, objects


def test_a_waypoint_is_read_with_the_defaults_of_the_crd() -> None:
    (found,) = objects(gateway()).gateways
    assert found.class_name == "tulle-waypoint"
    assert found.listeners == (GatewayListener("mesh", "HBONE", 15008, "Same"),)


def test_namespaces_may_be_selected() -> None:
    allowed = (
        "from: Selector, selector: {matchLabels: {a: b},"
        " matchExpressions: [{key: c, operator: In, values: [d]}]}"
    )
    (found,) = objects(gateway(allowed=allowed)).gateways
    (listener,) = found.listeners
    assert listener.labels == {"a": "b"}
    assert listener.expressions == (Expression("c", "In", ("d",)),)


@pytest.mark.parametrize(
    ("before", "after", "field"),
    [
        ("port: 15008", "port: 0", "spec.listeners[0].port"),
        ("protocol: HBONE", "protocl: HBONE", "spec.listeners[0].protocl"),
        ("name: mesh", "name: ''", "spec.listeners[0].name"),
        ("namespaces: {}", "namespaces: {from: Some}", "namespaces.from"),
        ("namespaces: {}", "kind: x", "allowedRoutes.kind"),
        ("  listeners:", "  listen: []\n  listeners:", "spec.listen"),
    ],
)
def test_a_field_that_is_wrong_or_unknown_is_named(before: str, after: str, field: str) -> None:
    text = gateway().replace(before, after)
    found = load(text)
    assert found.objects.gateways == ()
    assert field in found.problems[0].message
    others = load(text.replace("tulle-waypoint", "nginx"))
    assert others.problems == (), "somebody else's"
    assert others.objects.gateways[0].listeners == ()


def test_a_broken_change_leaves_the_last_good_gateway() -> None:
    text = gateway() + gateway("other").replace("port: 15008", "port: x")
    found = load(text)
    assert [each.meta.name for each in found.objects.gateways] == ["way"]


def test_a_class_is_of_the_cluster() -> None:
    (found,) = objects(
        "{apiVersion: gateway.networking.k8s.io/v1, kind: GatewayClass, metadata: {name: a},"
        " spec: {controllerName: tulle.io/waypoint}}"
    ).gateway_classes
    assert (found.meta.namespace, found.controller) == ("", "tulle.io/waypoint")


def test_a_grant_is_read() -> None:
    (found,) = objects(grant("mine", "shop", "db")).reference_grants
    assert found.froms == (GrantFrom("gateway.networking.k8s.io", "HTTPRoute", "shop"),)
    assert found.tos == (GrantTo("", "Service", "db"),)


@pytest.mark.parametrize(
    ("before", "after"),
    [("kind: HTTPRoute", "kind: ''"), ("namespace: shop}", "x: y}"), ("kind: Service", "x: y")],
)
def test_a_grant_that_says_too_little_grants_nothing(before: str, after: str) -> None:
    found = load(grant("mine", "shop").replace(before, after))
    assert found.objects.reference_grants == ()
    assert len(found.problems) == 1
