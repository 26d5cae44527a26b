"""A daemon of ours as a child process: its log as it comes, and its end."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

DEADLINE_S = 15.0


@dataclass
class Daemon:
    """A running daemon. `lines` is everything it has logged on standard error."""

    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list, kw_only=True)

    async def logged(self, pattern: str, deadline_s: float = DEADLINE_S) -> str:
        """The first log line with this in it, now or soon."""
        async with asyncio.timeout(deadline_s):
            while True:
                for line in self.lines:
                    if re.search(pattern, line):
                        return line
                await asyncio.sleep(0.01)

    async def end(self) -> int:
        """Ask it to end, and wait; the exit code."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Read its log while the context lasts; it is ended with it, by force if need be."""
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(self._read(), name="daemon.log")
            try:
                yield
            finally:
                try:
                    await self.end()
                except TimeoutError:
                    self.process.kill()
                    await self.process.wait()
                reading.cancel()

    async def _read(self) -> None:
        assert self.process.stderr is not None
        async for line in self.process.stderr:
            self.lines.append(line.decode().rstrip())


async def ask(path: str, target: str, method: str) -> tuple[int, bytes]:
    """Status and body of a page on a unix socket."""
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(f"{method} {target} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
    async with asyncio.timeout(DEADLINE_S):
        data = await reader.read()
    writer.close()
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), body
