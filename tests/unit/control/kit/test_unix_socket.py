"""Sockets at a path: for us alone, in place of a stale one, never in place of anything else."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from control.kit import unix_socket


def test_the_folder_is_made_and_the_mode_is_ours_alone(tmp_path: Path) -> None:
    path = tmp_path / "run" / "node" / "x.sock"
    with unix_socket.bind(path) as sock:
        assert sock.type == socket.SOCK_STREAM
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    unix_socket.bind(path).close()
    with unix_socket.bind(path, socket.SOCK_SEQPACKET) as sock:
        assert sock.type == socket.SOCK_SEQPACKET


def test_a_file_or_a_link_is_not_touched(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    file.write_text("precious")
    link.symlink_to(file)
    for path in (file, link):
        with pytest.raises(FileExistsError):
            unix_socket.bind(path)
    assert file.read_text() == "precious"
    assert link.is_symlink()


def test_a_path_that_is_too_long_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="too long"):
        unix_socket.bind(tmp_path / ("x" * 120))
