"""The process on its host: what it cannot have is told to the operator."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from ztunnel.supervisor.host import join_cgroup, raise_descriptor_limit


def test_a_cgroup_that_cannot_be_joined_is_the_operators_problem(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot join the cgroup"):
        join_cgroup(tmp_path / "file" / "below")


def test_a_process_may_open_as_many_files_as_its_host_allows() -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (before[1], before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
