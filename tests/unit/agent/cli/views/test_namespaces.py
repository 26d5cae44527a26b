"""Rows of namespaces, from an example mesh."""

from __future__ import annotations

from agent.cli.views.namespaces import MODE_LABELS, mode, namespace_rows
from tests.unit.agent.cli.mesh_example import example


def test_namespaces_count_pods_policies_and_what_escaped() -> None:
    idle, shop = namespace_rows(example())
    assert (idle["name"], idle["mode"], idle["pods"]) == ("idle", "none", 0)
    assert shop == {
        "name": "shop",
        "mode": "ambient",
        "pods": 2,
        "captured": 1,
        "uncaptured_connections": 4,
        "policies": 1,
    }


def test_the_mode_of_a_namespace_is_what_the_control_plane_decides() -> None:
    tulle, istio = MODE_LABELS
    assert mode({}) == "none"
    assert mode({tulle: "ambient", istio: "none"}) == "none"
    assert mode({tulle: "odd", istio: "ambient"}) == "ambient"
    assert mode({tulle: "odd"}) == "odd"
