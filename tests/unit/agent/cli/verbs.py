"""The verbs as an operator runs them, on a saved dump."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from agent.cli.main import tulle
from agent.cli.mesh import MeshDump


def run(*words: str) -> Result:
    return CliRunner().invoke(tulle, list(words))


def save(folder: Path, mesh: MeshDump, name: str = "dump.json") -> str:
    """Path of a dump of this mesh, as a word of a command line."""
    path = folder / name
    path.write_text(json.dumps(mesh.as_json()))
    return str(path)


def rows(result: Result) -> list[list[str]]:
    """Cells of a table, its titles first. No cell of the example has a space in it."""
    assert result.exit_code == 0, result.output
    return [line.split() for line in result.stdout.splitlines()]
