"""A real `tulle-control` as a child process, on free loopback ports and in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from control.kit.clock import SystemClock
from control.server.ca.keys import load_token_key
from control.server.callers.tokens import NodeTokens
from control.server.plane import subject_of

DEADLINE_S = 15.0
_PORTS = re.compile(r"control\.started .*ports=\"?\[(\d+)")


@dataclass
class Control:
    """A running control plane. `lines` is everything it logged."""

    folder: Path
    process: asyncio.subprocess.Process
    port: int = 0
    lines: list[str] = field(default_factory=list)

    @property
    def manifests(self) -> Path:
        return self.folder / "manifests"

    @property
    def root_pem(self) -> bytes:
        return (self.folder / "state/ca/root-cert.pem").read_bytes()

    def token(self, node: str) -> str:
        key = load_token_key(self.folder / "state")
        tokens = NodeTokens(key, subject_of("istio-system"), SystemClock())
        return tokens.issue(node, timedelta(hours=1))

    async def admin(self, path: str, method: str = "GET") -> Any:
        reader, writer = await asyncio.open_unix_connection(str(self.folder / "admin.sock"))
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        async with asyncio.timeout(DEADLINE_S):
            data = await reader.read()
        writer.close()
        return json.loads(data.partition(b"\r\n\r\n")[2])

    async def logged(self, pattern: str) -> str:
        """The first log line with this in it, now or soon."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for line in self.lines:
                    if re.search(pattern, line):
                        return line
                await asyncio.sleep(0.01)


@asynccontextmanager
async def running_control(folder: Path, *flags: str) -> AsyncIterator[Control]:
    (folder / "manifests").mkdir(exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "control.server.main",
        "--manifests",
        str(folder / "manifests"),
        "--state",
        str(folder / "state"),
        "--listen",
        "127.0.0.1:0",
        "--metrics",
        "127.0.0.1:0",
        "--admin",
        str(folder / "admin.sock"),
        "--log-level",
        "debug",
        *flags,
        stderr=asyncio.subprocess.PIPE,
    )
    control = Control(folder, process)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read(control), name="control.log")
        try:
            found = _PORTS.search(await control.logged(r"control\.started|control\.failed"))
            assert found is not None, control.lines
            control.port = int(found[1])
            yield control
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
            reading.cancel()


async def _read(control: Control) -> None:
    assert control.process.stderr is not None
    async for line in control.process.stderr:
        control.lines.append(line.decode().rstrip())
