"""Rows of the kernel's tables, from an example mesh."""

from __future__ import annotations

from agent.cli.mesh import MeshDump
from agent.cli.views.maps import map_rows
from tests.unit.agent.cli.mesh_example import NOW, example


def test_maps_come_by_node_the_fullest_first() -> None:
    rows = map_rows(example())
    assert [(row["node"], row["name"], row["percent"], row["drops"]) for row in rows] == [
        ("n1", "flows", 50.0, 3),
        ("n1", "pods", 0.1, 0),
        ("n2", "flows", 50.0, 3),
        ("n2", "pods", 0.1, 0),
    ]


def test_an_older_agent_knows_no_drops() -> None:
    mesh = MeshDump(NOW, nodes={"n1": {"agent": {"maps": [{"name": "pods", "used": 1, "max": 0}]}}})
    (row,) = map_rows(mesh)
    assert (row["percent"], row["drops"]) == (0.0, 0)
