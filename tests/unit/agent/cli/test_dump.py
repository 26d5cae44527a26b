"""`tulle dump`: everything that answers, without secrets, in a file of its owner's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.mesh import load_dump
from agent.fetch import FetchError
from control.kit.errors import ConfigError
from tests.unit.agent.cli.verbs import run


@pytest.fixture
def mesh(tmp_path: Path) -> Path:
    """A run folder whose only node has ended and left its socket."""
    (tmp_path / "run" / "n1").mkdir(parents=True)
    (tmp_path / "run" / "n1" / "agent.sock").touch()
    return tmp_path / "run"


def test_a_dump_is_saved_even_if_parts_are_away(mesh: Path, tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    result = run("--run-dir", str(mesh), "dump", "-o", str(path))
    assert result.exit_code == 2
    assert result.stdout == ""
    assert f"saved 1 nodes to {path}" in result.stderr
    assert "warning: " in result.stderr
    assert path.stat().st_mode & 0o777 == 0o600
    found = load_dump(path)
    assert list(found.nodes) == ["n1"]
    assert found.errors, "a reader sees what was away"


def test_without_a_file_it_goes_to_standard_output(mesh: Path) -> None:
    result = run("--run-dir", str(mesh), "dump")
    assert json.loads(result.stdout)["nodes"].keys() == {"n1"}


def test_a_file_that_cannot_be_written_is_an_error(mesh: Path, tmp_path: Path) -> None:
    result = run("--run-dir", str(mesh), "dump", "-o", str(tmp_path / "absent" / "mesh.json"))
    assert isinstance(result.exception, ConfigError)
    assert "No such file" in str(result.exception)


def test_no_mesh_leaves_no_file(tmp_path: Path) -> None:
    path = tmp_path / "mesh.json"
    result = run("--run-dir", str(tmp_path), "dump", "-o", str(path))
    assert isinstance(result.exception, FetchError)
    assert not path.exists()
