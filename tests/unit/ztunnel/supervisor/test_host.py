"""The process on its host: what it cannot have is told to the operator."""

from __future__ import annotations

from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from ztunnel.supervisor.host import join_cgroup


def test_a_cgroup_that_cannot_be_joined_is_the_operators_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot join the cgroup"):
        join_cgroup(tmp_path / "file" / "below")
