"""Options of every read command: node, namespace, labels, a dump instead of the mesh, formats."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest

from agent.cli.mesh import MeshSource
from agent.cli.options import Reading, parse_selector
from agent.cli.render import Output
from agent.cli.views.pages import Filter
from control.kit.errors import ConfigError
from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import run, save

READERS = ["workloads", "services", "policies", "certificates", "connections", "maps", "status"]


@pytest.mark.parametrize("verb", READERS)
@pytest.mark.parametrize("shape", ["table", "wide", "json", "yaml", "name"])
def test_every_read_command_reads_a_dump(dump: str, verb: str, shape: str) -> None:
    result = run(verb, "-f", dump, "-o", shape)
    assert result.exit_code == 0, result.output
    assert result.stdout
    if shape == "json":
        assert json.loads(result.stdout)


@pytest.mark.parametrize("verb", ["certificates", "connections", "maps", "status"])
def test_one_node_is_asked_alone(dump: str, verb: str) -> None:
    shown = run(verb, "-f", dump, "--node", "n1", "-o", "wide").stdout.split()
    assert "n1" in shown
    assert "n2" not in shown


@pytest.mark.parametrize("verb", READERS)
def test_a_node_that_is_not_there_is_an_error(dump: str, verb: str) -> None:
    assert isinstance(run(verb, "-f", dump, "--node", "n9").exception, ConfigError)


def test_a_namespace_and_all_of_them(dump: str) -> None:
    assert run("workloads", "-f", dump, "-n", "shop", "-o", "name").stdout == "shop/a\nshop/b\n"
    assert run("workloads", "-f", dump, "-n", "idle", "-o", "name").stdout == ""
    everything = run("workloads", "-f", dump, "-o", "name").stdout
    assert everything == "shop/a\nshop/b\n"
    assert run("workloads", "-f", dump, "-n", "absent", "-A", "-o", "name").stdout == everything


def test_labels_choose_pods(dump: str) -> None:
    assert run("workloads", "-f", dump, "-l", "app=a", "-o", "name").stdout == "shop/a\n"
    assert run("workloads", "-f", dump, "-l", "app!=a", "-o", "name").stdout == "shop/b\n"
    wrong = run("workloads", "-l", "app in (a)")
    assert wrong.exit_code == 2
    assert "-l " in wrong.stderr


def test_labels_that_nobody_knows_are_an_error(tmp_path: Path) -> None:
    mesh = example()
    mesh.labels = {}
    result = run("workloads", "-f", save(tmp_path, mesh), "-l", "app=a")
    assert isinstance(result.exception, ConfigError)
    assert str(result.exception).startswith("-l: ")


def test_parts_that_do_not_answer_are_told_and_the_rest_is_shown(tmp_path: Path) -> None:
    mesh = example()
    mesh.errors = ["agent-n3: nothing listens"]
    mesh.away = {"agent-n3": "nothing listens"}
    result = run("workloads", "-f", save(tmp_path, mesh), "--no-headers")
    assert result.stderr == (
        "warning: agent-n3: nothing listens\nerror: incomplete, without the answer of agent-n3\n"
    )
    assert result.stdout.count("\n") == 2
    assert result.exit_code == 2
    assert run("certificates", "-f", save(tmp_path, mesh)).exit_code == 0, "no agent needed"


@pytest.mark.parametrize("timeout", ["0", "4000", "soon"])
def test_a_wait_is_bounded(dump: str, timeout: str) -> None:
    assert run("workloads", "-f", dump, "--timeout", timeout).exit_code == 2


def test_a_selector_that_cannot_be_read_names_its_option() -> None:
    assert parse_selector([]) == ()
    with pytest.raises(click.UsageError, match="-l "):
        parse_selector(["=x"])


def test_a_control_plane_on_another_host_is_said_where_it_is_needed(tmp_path: Path) -> None:
    mesh = example()
    mesh.control = {}
    path = save(tmp_path, mesh)
    for verb in ("policies", "status"):
        result = run(verb, "-f", path)
        assert (result.exit_code, "on another host" in result.stderr) == (0, True)
    assert "another host" not in run("workloads", "-f", path).stderr


def test_only_labels_need_the_control_plane(tmp_path: Path) -> None:
    """Without -l a mesh whose control plane is away can be read."""
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "agent.sock").touch()
    found = Reading(MeshSource(tmp_path), Filter(), Output()).read("agent")
    assert found.control == {}
