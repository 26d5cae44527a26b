"""The control plane that is measured: a real process on a folder of manifests."""

from __future__ import annotations

import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes.control import Control, starting_control

START_S = 120.0  # 50,000 pods on a slow machine


@dataclass
class Subject:
    """`ready_s` and `ready_cpu_s`: from its start to its first answer."""

    control: Control
    metrics_port: int
    ready_s: float
    ready_cpu_s: float

    def cpu_s(self) -> float:
        """Time of its threads, by the scheduler: ticks are too coarse for one change."""
        tasks = Path(f"/proc/{self.control.process.pid}/task").glob("*/schedstat")
        return sum(int(each.read_text().split()[0]) for each in tasks) / 1e9

    def memory_mib(self) -> tuple[float, float]:
        """Resident now, and at most since the last call."""
        folder = Path(f"/proc/{self.control.process.pid}")
        found = dict(
            line.split(":", 1)
            for line in (folder / "status").read_text().splitlines()
            if ":" in line
        )
        now, most = (int(found[name].split()[0]) / 1024 for name in ("VmRSS", "VmHWM"))
        (folder / "clear_refs").write_text("5")
        return now, most

    @asynccontextmanager
    async def probed(self) -> AsyncIterator[list[float]]:
        """Times of the health page while the context is open, in ms, sorted, once it is closed."""
        took: list[float] = []
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "tests.bench.scale.probe",
            str(self.metrics_port),
            stdout=asyncio.subprocess.PIPE,
        )
        try:
            yield took
        finally:
            process.send_signal(signal.SIGTERM)
            out, _ = await process.communicate()
            took += sorted(map(float, out.split()))


@asynccontextmanager
async def running(folder: Path, port: int) -> AsyncIterator[Subject]:
    """A control plane on `folder`/manifests, with the state that is there."""
    flags = ("--manifests", str(folder / "manifests"), "--log-level", "info")
    flags += ("--metrics", f"127.0.0.1:{port}")
    started_s = time.monotonic()
    async with starting_control(folder, *flags) as control:
        await control.started(START_S)
        subject = Subject(control, port, time.monotonic() - started_s, 0.0)
        subject.ready_cpu_s = subject.cpu_s()
        yield subject
