"""Files that are whole or absent."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from control.kit.files import write_as_asked, write_atomic


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


def test_what_a_user_names_is_written_where_a_link_leads(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for _ in range(2):  # a file that is not there yet, and one that is
        write_as_asked(tmp_path / "link", b"one", 0o600)
        assert (tmp_path / "link").is_symlink()
        assert (tmp_path / "file").read_bytes() == b"one"


def test_a_pipe_that_a_user_names_is_written_to_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_as_asked(tmp_path / "pipe", b"one")
        assert os.read(reader, 10) == b"one"
    finally:
        os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_a_full_device_is_an_error_and_stays() -> None:
    with pytest.raises(OSError, match="No space left"):
        write_as_asked(Path("/dev/full"), b"one")
    assert Path("/dev/full").is_char_device()
