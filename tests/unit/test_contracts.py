"""The import contracts are closed by default: a room that nobody declared may not be imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the sources, to plant something in."""
    for package in ("agent", "bpf", "control", "ztunnel"):
        shutil.copytree(
            ROOT / package,
            tmp_path / package,
            ignore=lambda folder, names: [
                name for name in names if not name.endswith(".py") and Path(folder, name).is_file()
            ],
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def plant(room: Path) -> None:
    room.mkdir()
    (room / "__init__.py").write_text("SEED = 1\n")


def lint(tree: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [LINT, "--no-logo", "--no-cache"], cwd=tree, capture_output=True, text=True, check=False
    )


def test_a_new_room_in_control_is_closed_to_agent_and_ztunnel(tree: Path) -> None:
    plant(tree / "control" / "newroom")
    plant(tree / "control" / "server" / "newroom")
    (tree / "agent" / "reach.py").write_text(
        "import control.newroom\nimport control.server.newroom\n"
    )
    (tree / "ztunnel" / "reach.py").write_text(
        "import control.newroom\nimport control.server.newroom\n"
    )

    answer = lint(tree)

    assert answer.returncode == 1, answer.stderr
    for importer in ("agent.reach", "ztunnel.reach"):
        assert f"- {importer} -> control.newroom (l.1)" in answer.stdout
        assert f"- {importer} -> control.server.newroom (l.2)" in answer.stdout


def test_a_new_room_in_control_has_to_name_its_place(tree: Path) -> None:
    """Even if nobody imports it: the layers are exhaustive."""
    plant(tree / "control" / "newroom")
    plant(tree / "control" / "server" / "newroom")

    answer = lint(tree)

    assert answer.returncode == 1, answer.stderr
    assert "control.newroom" in answer.stdout
    assert "control.server.newroom" in answer.stdout
