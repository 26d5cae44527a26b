"""The first part of a ztunnel's end: until nothing is open, and who comes after us."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

from ztunnel.supervisor.leaving import Leaving, shares_network, successor

LISTEN = """
import socket, sys
sock = socket.socket(socket.AF_UNIX)
sock.bind(sys.argv[1])
sock.listen()
print("there", flush=True)
sys.stdin.read()
"""


def test_nothing_is_open_when_every_worker_says_so() -> None:
    async def test() -> None:
        leaving = Leaving(lambda: {0, 1})
        leaving.heard(0, idle=True)
        assert not await leaving.idle(0.01)
        leaving.heard(1, idle=True)
        assert await leaving.idle(5)
        leaving.heard(0, idle=False)
        assert not await leaving.idle(0.01)
        leaving.heard(0, idle=True)
        leaving.lost(1)
        assert not await leaving.idle(0.01)

    asyncio.run(test())


def test_the_one_who_has_the_admin_socket_comes_after_us(tmp_path: Path) -> None:
    path = tmp_path / "ztunnel.sock"
    assert successor(path) is None, "nobody has it"
    with socket.socket(socket.AF_UNIX) as own:
        own.bind(str(path))
        own.listen()
        assert successor(path) is None, "it is our own"
    path.unlink()
    with subprocess.Popen(
        [sys.executable, "-c", LISTEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        other.stdout.readline()
        assert successor(path) == other.pid
        assert shares_network(other.pid)
        other.communicate()
    assert successor(path) is None, "it has died"


def test_who_cannot_be_seen_shares_nothing() -> None:
    assert shares_network(os.getpid())
    assert not shares_network(0)
