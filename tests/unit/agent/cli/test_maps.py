"""`tulle maps`: how full the tables of each node are."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import rows, run, save


def test_each_node_has_its_tables(dump: str) -> None:
    titles, *found = rows(run("maps", "-f", dump))
    assert titles == ["NAME", "USED", "MAX", "%", "DROPS", "NODE"]
    assert ["flows", "512", "1024", "50.0", "3", "n1"] in found
    assert {line[-1] for line in found} == {"n1", "n2"}


def test_a_node_whose_agent_is_away_has_none(tmp_path: Path) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        del parts["agent"]
    result = run("maps", "-f", save(tmp_path, mesh))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no agent answers\n")
