"""`tulle certificates`: leaves and roots with their ends, never a key."""

from __future__ import annotations

from pathlib import Path

from tests.unit.agent.cli.mesh_example import PRIVATE_KEY, A, example
from tests.unit.agent.cli.verbs import rows, run, save


def test_leaves_and_roots_with_their_ends(dump: str) -> None:
    titles, *found = rows(run("certificates", "-f", dump))
    assert titles[:4] == ["IDENTITY", "NODE", "TYPE", "STATUS"]
    assert {(line[0], line[2]) for line in found} >= {(A, "leaf")}
    assert "root" in {line[2] for line in found}
    assert all("2026-11-23T00:30:00Z" in line for line in found)


def test_those_of_one_namespace_are_its_leaves(dump: str) -> None:
    lines = rows(run("certificates", "-n", "shop", "-f", dump, "--no-headers"))
    assert [line[2] for line in lines] == ["leaf", "leaf"]
    assert run("certificates", "-n", "other", "-f", dump).stdout == ""


def test_a_key_that_got_into_a_dump_is_not_shown(tmp_path: Path) -> None:
    mesh = example()
    mesh.nodes["n1"]["ztunnel"]["certificates"][0]["key"] = PRIVATE_KEY
    for shape in ("wide", "json", "yaml"):
        assert "PRIVATE" not in run("certificates", "-f", save(tmp_path, mesh), "-o", shape).stdout


def test_nobody_enrolled_is_no_error(tmp_path: Path) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        parts["ztunnel"]["certificates"] = []
    result = run("certificates", "-f", save(tmp_path, mesh))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "only enrolled pods have one" in result.stderr
