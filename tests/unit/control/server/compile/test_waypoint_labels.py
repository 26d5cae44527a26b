"""Labels about waypoints."""

from __future__ import annotations

import pytest

from control.model.route import WaypointKey
from control.server.compile.waypoint_labels import (
    SWITCHED_OFF,
    is_waypoint,
    waypoint_of_pod,
    wish_of,
)
from tests.support.gateways import gateway
from tests.support.manifests import objects, pod

USE, SPACE = "istio.io/use-waypoint", "istio.io/use-waypoint-namespace"


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({}, None),
        ({USE: ""}, None),
        ({USE: "none"}, SWITCHED_OFF),
        ({USE: "way"}, WaypointKey("shop", "way")),
        ({USE: "way", SPACE: "infra"}, WaypointKey("infra", "way")),
        ({SPACE: "infra"}, None),
        ({USE: "none", SPACE: "infra"}, SWITCHED_OFF),
    ],
)
def test_wishes(labels: dict[str, str], expected: WaypointKey | None) -> None:
    assert wish_of(labels, "shop") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (gateway(), True),
        (gateway(class_name="istio-waypoint"), True),
        (gateway(class_name="istio"), False),
        (gateway(port=8080), False),
        (gateway(protocol="HTTPS"), False),
    ],
)
def test_a_waypoint_is_of_our_class_and_listens_for_tunnels(text: str, expected: bool) -> None:
    (found,) = objects(text).gateways
    assert is_waypoint(found) == expected


def test_a_pod_is_a_waypoints_by_its_label_and_its_account() -> None:
    label = "gateway.networking.k8s.io/gateway-name: way"
    for text, expected in (
        (pod(labels=label, spec="serviceAccountName: way"), ("shop", "way")),
        (pod(labels=label, spec="serviceAccountName: web"), None),
        (pod(spec="serviceAccountName: way"), None),
    ):
        assert waypoint_of_pod(objects(text).pods[0]) == expected
