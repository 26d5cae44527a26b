"""A real `tulle-ztunnel` as a child process, against a real control plane."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.processes.control import Control
from tests.support.processes.daemon import DEADLINE_S, Daemon, ask


@dataclass
class Ztunnel(Daemon):
    """A running ztunnel."""

    run_dir: Path

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        return await ask(str(self.run_dir / "n1" / "ztunnel.sock"), path, method)

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
    ztunnel = Ztunnel(process, folder / "run")
    async with ztunnel.running():
        await ztunnel.logged("ztunnel.started|Error")
        yield ztunnel
