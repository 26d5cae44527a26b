"""A process of ours, a copy or a program: its end is awaited by its pidfd."""

from __future__ import annotations

import asyncio
import os
import subprocess


class Forked:
    """`returncode` is None until `wait` has seen its end; below zero: the signal that ended it."""

    def __init__(self, pid: int, program: subprocess.Popen[bytes] | None = None) -> None:
        """`program`: how it was started. It would ask for the exit code itself when nobody has it
        any more."""
        self.pid = pid
        self.returncode: int | None = None
        self._program = program

    async def wait(self) -> int:
        """Its exit code. One waits at a time; who gives up may wait again."""
        if self.returncode is None:
            handle = os.pidfd_open(self.pid)
            try:
                await _readable(handle)
            finally:
                os.close(handle)
            self.returncode = _code_of(self.pid)
            if self._program is not None:
                self._program.returncode = self.returncode
        return self.returncode


def _code_of(ended: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(ended, 0)[1])


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
