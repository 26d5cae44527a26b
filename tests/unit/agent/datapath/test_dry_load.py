"""A trial of programs that cannot be compiled, or not be tried at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath.dry_load import dry_load
from agent.datapath.errors import CompileFailed, NotPermitted


def test_sources_that_do_not_compile_are_an_error(tmp_path: Path) -> None:
    with pytest.raises((CompileFailed, NotPermitted)):
        dry_load(tmp_path / "cache", tmp_path)
    assert not list(tmp_path.rglob("*.json"))
