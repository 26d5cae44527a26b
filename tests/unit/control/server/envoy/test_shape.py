from __future__ import annotations

import json
from typing import Any

import pytest

from control.server.envoy import shape
from control.server.envoy.descriptors import decode, encode
from control.server.envoy.names import CONNECT_TERMINATE, IN_HTTP
from control.server.envoy.settings import DEFAULTS, ShapeSettings, Tracing
from control.wire.types import CLUSTER_TYPE, LISTENER_TYPE

TRACED = ShapeSettings(tracing=Tracing("10.0.0.9", 4318, 0.5))


def manager(listener: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = listener["filter_chains"][0]["filters"][-1]["typed_config"]
    return found


@pytest.mark.parametrize("settings", [DEFAULTS, TRACED, ShapeSettings(access_log=False)])
def test_all_of_it_has_envoys_form(settings: ShapeSettings) -> None:
    for name, value in shape.listeners("cluster.local", "shop/waypoint", settings).items():
        assert decode(LISTENER_TYPE, encode(LISTENER_TYPE, value))["name"] == name
    for name, value in shape.clusters("cluster.local", settings).items():
        assert decode(CLUSTER_TYPE, encode(CLUSTER_TYPE, value))["name"] == name


def test_rules_that_are_missing_refuse() -> None:
    """Routes bring them; a route that brings none must not be an open door."""
    for name in (CONNECT_TERMINATE, IN_HTTP):
        made = manager(shape.listeners("cluster.local", "w", DEFAULTS)[name])
        rules = {
            each["name"]: each["typed_config"]["rules"]
            for each in made["http_filters"]
            if each["name"].endswith((".deny", ".allow"))
        }
        deny, allow = (
            rules[each] for each in sorted(rules, key=lambda name: name.endswith("allow"))
        )
        assert deny["action"] == "DENY"
        assert deny["policies"]
        assert allow == {"action": "ALLOW", "policies": {}}


def test_texts_that_travel_are_part_of_a_connections_key() -> None:
    """`envoy.string` is not: one client's connection would be given to another."""
    for value in shape.listeners("cluster.local", "w", TRACED).values():
        assert '"envoy.string"' not in json.dumps(value)


def test_spans_have_a_cluster_of_their_own() -> None:
    assert "otlp" in shape.clusters("cluster.local", TRACED)
    assert "otlp" not in shape.clusters("cluster.local", DEFAULTS)
