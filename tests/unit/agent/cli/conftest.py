from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent.cli.redact import redact
from tests.unit.agent.cli.mesh_example import example


@pytest.fixture
def dump(tmp_path: Path) -> str:
    """The example mesh as `tulle dump` saves it."""
    path = tmp_path / "dump.json"
    path.write_text(json.dumps(redact(example().as_json())))
    return str(path)
