"""Sockets of a process, found by their inodes."""

from __future__ import annotations

import os
import socket

from agent.datapath import listeners


def test_a_process_shows_its_sockets() -> None:
    with socket.socket() as one, open(os.devnull, "rb") as file:
        found = listeners._socket_fds(os.getpid())
        assert found[os.fstat(one.fileno()).st_ino] == one.fileno()
        assert os.fstat(file.fileno()).st_ino not in found
