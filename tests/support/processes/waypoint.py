"""A real `tulle-waypoint`, with a real Envoy, as a child process."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.peers.waypoint_control import NAME, WaypointControl
from tests.support.processes.daemon import DEADLINE_S, Daemon, ask


@dataclass
class Waypoint(Daemon):
    """A running waypoint. Its access log goes to `access`."""

    socket: Path

    async def get(self, path: str, method: str = "GET") -> tuple[int, bytes]:
        return await ask(str(self.socket), path, method)

    async def ready(self) -> None:
        """Wait until its page says so."""
        async with asyncio.timeout(DEADLINE_S):
            while True:
                if (await self.get("/healthz/ready"))[0] == 200:
                    return
                await asyncio.sleep(0.02)


@asynccontextmanager
async def running_waypoint(
    folder: Path, control: WaypointControl, *flags: str, pod: str = "waypoint-1"
) -> AsyncIterator[Waypoint]:
    """Waypoint of Gateway shop/waypoint; pages on its unix socket only."""
    (folder / "run").mkdir(exist_ok=True)
    (folder / "root.pem").write_bytes(control.authority.pem)
    (folder / "token").write_text("a-token\n")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "ztunnel.waypoint.main", "--gateway", "shop/waypoint"),
        *("--control", f"127.0.0.1:{control.port}", "--control-name", NAME),
        *("--control-root", str(folder / "root.pem"), "--token", str(folder / "token")),
        *("--run-dir", str(folder / "run"), "--pod-name", pod),
        *("--metrics", "off", "--readiness", "off", *flags),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE,
    )
    waypoint = Waypoint(process, folder / "run/waypoints" / f"shop.{pod}.sock")
    async with waypoint.running():
        await waypoint.logged("waypoint.started|rror")
        yield waypoint
