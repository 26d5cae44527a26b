"""A lab without nodes: its verbs run without root and touch files alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from agent.cli.main import tulle
from agent.lab.state import LabState, Store

Run = Callable[..., Result]


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """The run folder of a lab that is up, unmeshed and empty."""
    (tmp_path / "manifests").mkdir()
    Store(tmp_path).save(LabState("x", "/f", True, 1, str(tmp_path / "cgroup")))
    return tmp_path


@pytest.fixture
def run(run_dir: Path) -> Run:
    """`tulle --run-dir … lab WORDS`."""

    def invoke(*words: str, text: str = "") -> Result:
        return CliRunner().invoke(tulle, ["--run-dir", str(run_dir), "lab", *words], input=text)

    return invoke
