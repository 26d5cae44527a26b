from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.main import tulle
from agent.cli.redact import redact
from tests.unit.agent.cli.mesh_example import example


@pytest.fixture
def dump(tmp_path: Path) -> str:
    """The example mesh as `tulle dump` saves it."""
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(redact(example().as_json())))
    return str(path)


@pytest.fixture(autouse=True)
def no_mesh_of_this_host(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep the verbs away from a lab that runs here: they would ask it, and change it."""
    option = next(each for each in tulle.params if each.name == "run_dir")
    monkeypatch.setattr(option, "default", tmp_path / "run")
