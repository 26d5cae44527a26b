"""The start of a worker process, with a stand-in that says something and ends."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from ztunnel.supervisor.spawn import spawn, worker_argv

STAND_IN = "import socket, sys; socket.socket(fileno=int(sys.argv[1])).sendall(b'here')"


def test_a_worker_ends_with_its_supervisor() -> None:
    argv = worker_argv(7)
    assert argv[-4:] == ["-m", "ztunnel.worker", "--fd", "7"]
    assert argv[0].endswith("setpriv") == ("--pdeathsig" in argv)


def test_it_has_the_other_end_of_the_pipe() -> None:
    async def scenario() -> None:
        started = spawn(lambda descriptor: [sys.executable, "-c", STAND_IN, str(descriptor)])
        with started.pipe:
            async with asyncio.timeout(10.0):
                assert await started.process.wait() == 0
            started.pipe.settimeout(10.0)
            assert started.pipe.recv(10) == b"here"
            assert started.pipe.recv(10) == b"", "nobody else has it"

    asyncio.run(scenario())


def test_what_cannot_be_started_leaves_nothing_open() -> None:
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(FileNotFoundError):
        spawn(lambda _: ["/absent"])
    assert len(os.listdir("/proc/self/fd")) == before
