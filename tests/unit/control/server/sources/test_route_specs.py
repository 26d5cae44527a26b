"""Namespaces that a listener allows."""

from __future__ import annotations

import pytest

from control.server.sources.route_specs import Expression, GatewayListener


@pytest.mark.parametrize(
    ("listener", "own", "other"),
    [
        (GatewayListener("a", "HBONE", 1), True, False),
        (GatewayListener("a", "HBONE", 1, "All"), True, True),
        (GatewayListener("a", "HBONE", 1, "None"), False, False),
        (GatewayListener("a", "HBONE", 1, "Selector", {"team": "b"}), False, True),
        (GatewayListener("a", "HBONE", 1, "Selector"), True, True),
        (
            GatewayListener("a", "HBONE", 1, "Selector", {}, (Expression("team", "Exists"),)),
            False,
            True,
        ),
    ],
)
def test_namespaces(listener: GatewayListener, own: bool, other: bool) -> None:
    assert listener.allows("shop", "shop", {}) == own
    assert listener.allows("shop", "other", {"team": "b"}) == other


@pytest.mark.parametrize(
    ("operator", "with_it", "with_another", "without"),
    [
        ("In", True, False, False),
        ("NotIn", False, True, True),
        ("Exists", True, True, False),
        ("DoesNotExist", False, False, True),
    ],
)
def test_expressions(operator: str, with_it: bool, with_another: bool, without: bool) -> None:
    found = Expression("a", operator, ("b",))
    assert [found.holds({"a": "b"}), found.holds({"a": "c"}), found.holds({})] == [
        with_it,
        with_another,
        without,
    ]
