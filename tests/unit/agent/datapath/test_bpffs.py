"""The check for a bpffs, and a mount that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.datapath import bpffs
from agent.datapath.errors import NoBpffs


def test_an_ordinary_folder_is_no_bpffs(tmp_path: Path) -> None:
    assert not bpffs.is_bpffs(tmp_path)
    assert not bpffs.is_bpffs(tmp_path / "absent")


def test_nothing_is_mounted_where_there_is_no_folder(tmp_path: Path) -> None:
    with pytest.raises(NoBpffs, match="no directory"):
        bpffs.ensure(tmp_path / "absent")
