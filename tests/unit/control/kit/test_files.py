"""Files that are whole or absent."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from control.kit.files import write_atomic


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_is_replaced_whole_with_its_mode(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "secret"
    write_atomic(path, b"one", 0o600, sync=sync)
    write_atomic(path, b"two", 0o600, sync=sync)
    assert path.read_bytes() == b"two"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [each.name for each in tmp_path.iterdir()] == ["secret"]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "name").mkdir()  # a folder cannot be replaced by a file
    (tmp_path / "name" / "old").touch()
    with pytest.raises(OSError):
        write_atomic(tmp_path / "name", b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["name"]
    assert (tmp_path / "name" / "old").exists()


def test_a_folder_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomic(tmp_path / "absent" / "file", b"")
