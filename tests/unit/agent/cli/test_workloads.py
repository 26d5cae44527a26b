"""`tulle workloads`: what the tunnels know, with identities."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.cli.mesh_example import A, B, example
from tests.unit.agent.cli.verbs import rows, run, save


def test_each_once_with_identity_and_capture(dump: str) -> None:
    titles, *found = rows(run("workloads", "-f", dump))
    assert titles[:4] == ["NAMESPACE", "POD", "NODE", "ADDRESS"]
    assert [(line[1], line[4], line[6]) for line in found] == [
        ("a", A, "2026-11-22T11:00:00Z"),
        ("b", B, "-"),
    ]


def test_names_can_be_given_to_other_commands(dump: str) -> None:
    for name in run("workloads", "-f", dump, "-o", "name").stdout.split():
        assert run("connections", name, "-f", dump).exit_code == 0


def test_an_empty_mesh_is_no_error(tmp_path: Path) -> None:
    mesh = example()
    mesh.nodes.clear()
    result = run("workloads", "-f", save(tmp_path, mesh))
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no workloads\n")
    assert run("workloads", "-f", save(tmp_path, mesh), "-o", "json").stdout == "[]\n"
