"""A real `tulle-ztunnel` as a child process, against a real control plane."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.processes.control import Control

DEADLINE_S = 15.0


@dataclass
class Ztunnel:
    run_dir: Path
    process: asyncio.subprocess.Process
    lines: list[str] = field(default_factory=list)

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        socket_path = self.run_dir / "n1" / "ztunnel.sock"
        reader, writer = await asyncio.open_unix_connection(str(socket_path))
        writer.write(f"{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        async with asyncio.timeout(DEADLINE_S):
            data = await reader.read()
        writer.close()
        head, _, body = data.partition(b"\r\n\r\n")
        return int(head.split()[1]), body

    async def dump(self) -> dict[str, Any]:
        status, body = await self.get("/config_dump")
        assert status == 200
        value: dict[str, Any] = json.loads(body)
        return value

    async def dump_when(self, condition: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """The first config dump for which this holds."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if condition(dump := await self.dump()):
                    return dump
                await asyncio.sleep(0.02)

    async def logged(self, pattern: str) -> str:
        async with asyncio.timeout(DEADLINE_S):
            while True:
                for line in self.lines:
                    if re.search(pattern, line):
                        return line
                await asyncio.sleep(0.01)

    async def end(self) -> int:
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@asynccontextmanager
async def running_ztunnel(folder: Path, control: Control, *flags: str) -> AsyncIterator[Ztunnel]:
    """Node n1, pages on the unix socket only, ZDS at `folder/zds.sock`."""
    (folder / "root.pem").write_bytes(control.root_pem)
    (folder / "token").write_text(control.token("n1"))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ztunnel.main"),
        *("--control", f"127.0.0.1:{control.port}", "--control-root", str(folder / "root.pem")),
        *("--token", str(folder / "token"), "--node", "n1", "--run-dir", str(folder / "run")),
        *("--zds", str(folder / "zds.sock"), "--drain", "500ms"),
        *("--admin", "off", "--metrics", "off", "--readiness", "off"),
        *flags,
        stderr=asyncio.subprocess.PIPE,
    )
    ztunnel = Ztunnel(folder / "run", process)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(_read(ztunnel), name="ztunnel.log")
        try:
            await ztunnel.logged("ztunnel.started|Error")
            yield ztunnel
        finally:
            try:
                await ztunnel.end()
            except TimeoutError:
                process.kill()
                await process.wait()
            reading.cancel()


async def _read(ztunnel: Ztunnel) -> None:
    assert ztunnel.process.stderr is not None
    async for line in ztunnel.process.stderr:
        ztunnel.lines.append(line.decode().rstrip())
