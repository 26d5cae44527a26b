"""`tulle lab up` and `down`, as far as they need no root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from click.testing import CliRunner

from agent.cli.main import tulle
from control.kit.errors import ConfigError


def test_up_needs_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = CliRunner().invoke(tulle, ["--run-dir", str(tmp_path), "lab", "up", str(tmp_path)])
    assert isinstance(result.exception, ConfigError)
    assert "needs root" in str(result.exception)


def test_down_without_a_lab_is_no_error_and_leaves_nothing(tmp_path: Path) -> None:
    result = CliRunner().invoke(tulle, ["--run-dir", str(tmp_path / "run"), "lab", "down"])
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "no lab is up\n")
    assert not (tmp_path / "run").exists()
