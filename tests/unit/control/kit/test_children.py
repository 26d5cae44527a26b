"""`kill_child`: the exit code stays for whoever waits, and nobody else's process is hurt."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass

from control.kit.children import kill_child

SHELL = "/bin/sh"


@dataclass
class Spawned:
    pid: int
    returncode: int | None = None


def spawned(script: str) -> Spawned:
    return Spawned(os.posix_spawn(SHELL, [SHELL, "-c", script], os.environ))


def test_the_exit_code_of_one_that_has_ended_is_left() -> None:
    child = spawned("exit 3")
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    kill_child(child)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == 3


def test_one_that_runs_is_killed() -> None:
    child = spawned("exec sleep 60")
    kill_child(child)
    assert os.waitstatus_to_exitcode(os.waitpid(child.pid, 0)[1]) == -signal.SIGKILL


def test_one_that_is_gone_is_nothing() -> None:
    child = spawned("exit 0")
    os.waitpid(child.pid, 0)
    kill_child(child)
    kill_child(Spawned(1, returncode=0))


def test_a_pid_that_became_a_strangers_is_left() -> None:
    """The test's own process is there, and no child of its own."""
    kill_child(Spawned(os.getpid()))


def test_asyncio_never_says_255() -> None:
    async def ended() -> int:
        process = await asyncio.create_subprocess_exec(SHELL, "-c", "exit 3")
        kill_child(process)
        return await process.wait()

    async def codes() -> set[int]:
        return {await ended() for _ in range(20)}

    assert asyncio.run(codes()) <= {3, -signal.SIGKILL}
