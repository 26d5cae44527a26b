"""`tulle connections`: both ends of each, of one pod or all, and pods that no tunnel sees."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.mesh import MeshDump
from control.kit.errors import ConfigError
from tests.unit.agent.cli.mesh_example import connection, example
from tests.unit.agent.cli.verbs import rows, run, save


def test_one_between_two_nodes_is_listed_at_both(dump: str) -> None:
    titles, *found = rows(run("connections", "-f", dump, "-o", "wide"))
    assert [line[0] for line in found] == ["outbound", "inbound"]
    assert [line[titles.index("NODE")] for line in found] == ["n1", "n2"]


def test_a_direction_and_a_pod_narrow_it(dump: str) -> None:
    assert [line[0] for line in rows(run("connections", "-f", dump, "--direction", "inbound"))[1:]]
    for pod in ("a", "shop/a"):
        found = rows(run("connections", pod, "-f", dump, "--no-headers"))
        assert [line[0] for line in found] == ["outbound"]
    assert run("connections", "a", "-f", dump, "--direction", "inbound").stdout == ""


def test_data_goes_to_stdout_and_talk_to_stderr(dump: str) -> None:
    result = run("connections", "-f", dump, "-n", "idle")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no open connections\n")


def test_a_pod_of_a_namespace_wins_over_the_option(dump: str) -> None:
    assert run("connections", "shop/a", "-n", "idle", "-f", dump, "-o", "name").stdout


@pytest.mark.parametrize(("wrong", "meant"), [("aa", "'a'"), ("shop/aa", "'shop/a'")])
@pytest.mark.parametrize("verb", ["connections", "refusals"])
def test_a_misspelt_pod_is_told_with_those_there_are(
    dump: str, verb: str, wrong: str, meant: str
) -> None:
    said = str(run(verb, wrong, "-f", dump).exception)
    assert said.startswith(f"no pod '{wrong}', perhaps {meant}; there are: ")


def without_tunnels(mesh: MeshDump) -> MeshDump:
    for parts in mesh.nodes.values():
        parts["ztunnel"]["workloadState"] = {}
    return mesh


def test_a_pod_that_no_tunnel_serves_is_not_a_pod_without_traffic(
    dump: str, tmp_path: Path
) -> None:
    assert isinstance(run("connections", "shop/nobody", "-f", dump).exception, ConfigError)
    result = run("connections", "a", "-f", save(tmp_path, without_tunnels(example())))
    assert (result.exit_code, result.stdout) == (0, "")
    assert "a is not captured" in result.stderr


def test_a_peers_name_cannot_forge_a_line(tmp_path: Path) -> None:
    mesh = example()
    held = mesh.nodes["n1"]["ztunnel"]["workloadState"]["u1"]["connections"]
    held["outbound"] = [connection(destinationWorkload="shop/b\ninbound\x1b[2J")]
    result = run("connections", "a", "-f", save(tmp_path, mesh), "--no-headers")
    assert result.stdout.count("\n") == 1
    assert "\x1b" not in result.stdout
