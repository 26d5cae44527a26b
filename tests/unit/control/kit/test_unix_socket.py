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
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


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


KINDS = [socket.SOCK_STREAM, socket.SOCK_SEQPACKET]


@pytest.mark.parametrize("kind", KINDS)
def test_a_socket_that_is_served_is_not_replaced_and_its_server_hears_nothing(
    tmp_path: Path, kind: int
) -> None:
    path = tmp_path / "x.sock"
    with unix_socket.bind(path, kind) as server:
        server.listen()
        server.setblocking(False)
        for other in KINDS:
            with pytest.raises(OSError, match="served by another process"):
                unix_socket.bind(path, other)
        with pytest.raises(BlockingIOError):
            server.accept()
        with socket.socket(socket.AF_UNIX, kind) as client:
            client.connect(str(path))
            server.accept()[0].close()
    assert [each.name for each in tmp_path.iterdir()] == ["x.sock"]


def test_a_successor_takes_the_place_when_it_is_ready_and_keeps_it(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    first = unix_socket.bind(path)
    second = unix_socket.Unseen(path, takes_over=True)
    before = path.stat().st_ino
    second.show()
    after = path.stat().st_ino
    assert after != before
    first.close()
    assert path.stat().st_ino == after
    second.close()
    assert path.exists()  # its successor, if there were one, would have it


def test_a_start_that_fails_leaves_the_place_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with unix_socket.bind(path):
        before = path.stat().st_ino
        unix_socket.Unseen(path, takes_over=True).close()
        assert path.stat().st_ino == before
    assert [each.name for each in tmp_path.iterdir()] == ["x.sock"]


def test_what_a_killed_process_left_beside_the_path_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    dead = tmp_path / ".x.sock.123"
    unix_socket.bind(dead).close()
    starting = unix_socket.bind(tmp_path / ".x.sock.124")
    unix_socket.bind(path).close()
    assert {each.name for each in tmp_path.iterdir()} == {"x.sock", ".x.sock.124"}
    starting.close()


def test_the_longest_path_that_a_client_can_dial_can_be_bound(tmp_path: Path) -> None:
    folder = tmp_path / "f"
    path = folder / ("x" * (107 - len(str(folder)) - 1))
    with unix_socket.bind(path) as server, socket.socket(socket.AF_UNIX) as client:
        server.listen()
        client.connect(str(path))
    with pytest.raises(OSError, match="too long"):
        unix_socket.bind(path.with_name(path.name + "x"))
