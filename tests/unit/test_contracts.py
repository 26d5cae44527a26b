"""The import contracts are closed by default: a room that nobody declared may not be imported."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = Path(sys.executable).with_name("lint-imports")


def plant(room: Path) -> None:
    room.mkdir()
    (room / "__init__.py").write_text("SEED = 1\n")


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """The lint's answer to a copy of the sources with undeclared rooms in it; it takes a second.

    `newroom` is imported from outside, `quiet` by nobody.
    """
    tree = tmp_path_factory.mktemp("tree")
    for package in ("agent", "bpf", "control", "ztunnel"):
        shutil.copytree(
            ROOT / package,
            tree / package,
            ignore=lambda folder, names: [
                name for name in names if not name.endswith(".py") and Path(folder, name).is_file()
            ],
        )
    shutil.copy(ROOT / "pyproject.toml", tree)
    for name in ("newroom", "quiet"):
        plant(tree / "control" / name)
        plant(tree / "control" / "server" / name)
    for importer in ("agent", "ztunnel"):
        (tree / importer / "reach.py").write_text(
            "import control.newroom\nimport control.server.newroom\n"
        )
    return subprocess.run(
        [LINT, "--no-logo", "--no-cache"], cwd=tree, capture_output=True, text=True, check=False
    )


def test_a_new_room_in_control_is_closed_to_agent_and_ztunnel(
    answer: subprocess.CompletedProcess[str],
) -> None:
    assert answer.returncode == 1, answer.stderr
    for importer in ("agent.reach", "ztunnel.reach"):
        assert f"- {importer} -> control.newroom (l.1)" in answer.stdout
        assert f"- {importer} -> control.server.newroom (l.2)" in answer.stdout


def test_a_new_room_in_control_has_to_name_its_place(
    answer: subprocess.CompletedProcess[str],
) -> None:
    """Even if nobody imports it: the layers are exhaustive."""
    assert answer.returncode == 1, answer.stderr
    assert "control.quiet" in answer.stdout
    assert "control.server.quiet" in answer.stdout
