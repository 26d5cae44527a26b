"""A child's end: its exit code, also for those who gave up and wait again."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable

import pytest

from ztunnel.supervisor.child import Forked

SHELL = "/bin/sh"
DEADLINE_S = 10.0


def spawned(script: str) -> int:
    return os.posix_spawn(SHELL, [SHELL, "-c", script], os.environ)


def run(scenario: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(DEADLINE_S):
            await scenario

    asyncio.run(bounded())


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -KILL $$", -signal.SIGKILL)])
def test_it_has_an_exit_code_once_it_has_ended(script: str, code: int) -> None:
    child = Forked(spawned(script))
    assert child.returncode is None

    async def scenario() -> None:
        assert await child.wait() == code == child.returncode
        assert await child.wait() == code

    run(scenario())
    with pytest.raises(ChildProcessError):
        os.waitpid(child.pid, os.WNOHANG)


def test_who_gives_up_leaves_nothing_open_and_may_wait_again() -> None:
    child = Forked(spawned("kill -STOP $$"))

    async def scenario() -> None:
        before = len(os.listdir("/proc/self/fd"))
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(child.wait())
            await asyncio.sleep(0)
            assert len(os.listdir("/proc/self/fd")) == before + 1
            waiting.cancel()
        assert len(os.listdir("/proc/self/fd")) == before
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL

    run(scenario())


def test_the_object_that_started_it_knows_its_end_and_does_not_ask_for_it() -> None:
    program = subprocess.Popen([SHELL, "-c", "exit 4"])
    child = Forked(program.pid, program)

    async def scenario() -> None:
        assert await child.wait() == 4

    run(scenario())
    assert program.returncode == 4
