"""A real `tulle-control` as a child process, on free loopback ports and in a folder of its own."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from control.kit.clock import SystemClock
from control.server.ca.keys import load_token_key
from control.server.callers.tokens import NodeTokens, subject_of
from tests.support.processes.daemon import DEADLINE_S, Daemon, ask

_PORTS = re.compile(r"control\.started .*ports=\"?\[(\d+)")


@dataclass
class Control(Daemon):
    """A running control plane."""

    folder: Path
    port: int = 0

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

    async def started(self, deadline_s: float = DEADLINE_S) -> None:
        """Wait until it serves: a large mesh may take its time."""
        found = _PORTS.search(await self.logged(r"control\.started|control\.failed", deadline_s))
        assert found is not None, self.lines
        self.port = int(found[1])

    async def admin(self, path: str, method: str = "GET") -> Any:
        _, body = await ask(str(self.folder / "admin.sock"), path, method)
        return json.loads(body)


@asynccontextmanager
async def running_control(folder: Path, *flags: str) -> AsyncIterator[Control]:
    (folder / "manifests").mkdir(exist_ok=True)
    source = ("--manifests", str(folder / "manifests"))
    async with starting_control(folder, *source, *flags) as control:
        await control.started()
        yield control


@asynccontextmanager
async def starting_control(folder: Path, *flags: str) -> AsyncIterator[Control]:
    """Ports, state and admin socket are set; the flags say where its objects come from."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "control.server.main",
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
    control = Control(process, folder)
    async with control.running():
        yield control
