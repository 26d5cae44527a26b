"""A process that connects from a pod as fast as it can, and the outcome of each try.

A process of its own, so that the test's work does not slow it down (`probe.py`).
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from agent.lab.netns import inside
from tests.support.lab.mesh_bed import Bed

PROBE = Path(__file__).parent / "mesh_lab" / "probe.py"
END_S = 20.0


class Try(NamedTuple):
    started_s: float
    ended_s: float
    outcome: (
        str  # answered, closed (without a word), cut (ECONNABORTED), late, or unreached and why
    )
    port: int  # the client's
    target: int  # which of the targets


@dataclass
class Running:
    process: subprocess.Popen[str]
    tries: list[Try] = field(default_factory=list)

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        out, _ = self.process.communicate(timeout=END_S)
        self.tries = [Try(*each) for each in json.loads(out)]
        assert self.process.returncode == 0


@contextmanager
def prober(bed: Bed, pod: str, *targets: tuple[str, int], line: str = "probe") -> Iterator[Running]:
    """Its `tries` are there when the context has ended."""
    words = [f"{address} {port}" for address, port in targets]
    with inside(bed.pod(pod).netns):
        process = subprocess.Popen(
            [sys.executable, "-S", "-E", str(PROBE), line, *words],
            stdout=subprocess.PIPE,
            text=True,
        )
    running = Running(process)
    try:
        yield running
        running.stop()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()
