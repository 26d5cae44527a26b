"""`tulle log level`: levels of each process as rows; a level is not taken for a node."""

from __future__ import annotations

from pathlib import Path

import click
import pytest

from agent.cli.log import rows as log_rows
from agent.cli.mesh import MeshDump
from agent.fetch import FetchError
from control.kit.errors import ConfigError
from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import rows, run, save


@pytest.fixture
def mesh() -> MeshDump:
    found = example()
    found.control["log"] = {"": "info"}
    found.nodes["n1"]["logging"] = {
        "agent": {"": "info"},
        "ztunnel": {"": "info", "access": "debug"},
    }
    return found


def test_levels_are_rows(mesh: MeshDump) -> None:
    found = [(row["component"], row["scope"], row["level"]) for row in log_rows(mesh, "n1", None)]
    assert found == [
        ("agent", "*", "info"),
        ("ztunnel", "*", "info"),
        ("ztunnel", "access", "debug"),
    ]
    assert [row["component"] for row in log_rows(mesh, "", "control")] == ["control"]


def test_levels_of_a_dump(mesh: MeshDump, tmp_path: Path) -> None:
    path = save(tmp_path, mesh)
    assert len(rows(run("log", "level", "-f", path))) == 1 + 4
    shown = rows(run("log", "level", "n1", "-f", path, "--component", "ztunnel", "--no-headers"))
    assert shown == [["ztunnel", "n1", "*", "info"], ["ztunnel", "n1", "access", "debug"]]


def test_a_level_without_a_node_is_not_taken_for_a_node(dump: str) -> None:
    result = run("log", "level", "debug", "-f", dump)
    assert isinstance(result.exception, ConfigError)
    assert "tulle log level - debug" in str(result.exception)


def test_a_dump_has_no_levels_to_set(dump: str) -> None:
    result = run("log", "level", "n1", "debug", "-f", dump)
    assert result.exit_code == click.UsageError.exit_code
    assert "no levels to set" in result.stderr


def test_a_node_that_does_not_answer_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "agent.sock").touch()
    result = run("--run-dir", str(tmp_path), "log", "level", "n1", "debug")
    assert isinstance(result.exception, FetchError)
    assert "n1/agent.sock" in str(result.exception)
    assert "n1/ztunnel.sock" in str(result.exception), "all are tried"


@pytest.mark.parametrize(
    "level", ["loud", "access:", "a b:info", "notset", "info,,debug", "acess:debug"]
)
def test_a_level_that_is_none_is_an_error_before_anything_is_set(
    tmp_path: Path, level: str
) -> None:
    (tmp_path / "n1").mkdir()
    (tmp_path / "n1" / "agent.sock").touch()
    result = run("--run-dir", str(tmp_path), "log", "level", "n1", level)
    assert result.exit_code == 2
    assert "not a " in result.stderr or "no log scope 'acess', perhaps" in result.stderr


def test_the_control_plane_is_of_no_node(dump: str) -> None:
    assert run("log", "level", "n1", "-f", dump, "--component", "control").exit_code == 2
    assert run("log", "level", "n1", "-f", dump, "--node", "n2").exit_code == 2


@pytest.mark.parametrize("words", [("reset",), ("reset", "n1"), ("level", "n1", "debug")])
def test_without_a_mesh_nothing_is_counted(tmp_path: Path, words: tuple[str, ...]) -> None:
    result = run("--run-dir", str(tmp_path), "log", *words)
    assert isinstance(result.exception, FetchError)
    assert str(result.exception).startswith(f"no node and no control plane below {tmp_path}")
