"""Thousands of idle connections: the memory that each takes in the proxies."""

from __future__ import annotations

import selectors
import subprocess
import time
from typing import IO

from tests.bench.bed import Bed, tool_command
from tests.bench.cases.case import Case, Settings, Values
from tests.bench.model import BenchError, System, Topology
from tests.bench.target import Target

OPEN_TIMEOUT_S = 45.0
SETTLE_S = 0.5
WORKER = "worker_rss_{}_mib"


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    host, port = target.echo
    words = tool_command("hold.py", host, port, settings.idle_connections)
    before = target.rss_mib()
    with bed.background(target.client, words, subprocess.PIPE) as holder:
        if holder.stdout is None:
            raise BenchError("no output of the holder")
        said = _line(holder.stdout, OPEN_TIMEOUT_S)
        if said != "ready":
            raise BenchError(f"{settings.idle_connections} connections were not opened: {said}")
        time.sleep(SETTLE_S)
        during = target.rss_mib()
    values: Values = {}
    for side in target.sides:
        # Ours has a supervisor that has nothing to do with connections: the worker counts.
        worker = WORKER.format(side)
        name = worker if worker in during else f"rss_{side}_mib"
        grown_kib = (during[name] - before[name]) * 1024
        values[f"idle_{side}_kib"] = grown_kib / settings.idle_connections
    return values


def _line(stream: IO[bytes], timeout_s: float) -> str:
    """The last line that arrives within the time; an error message has several."""
    end_s, text = time.monotonic() + timeout_s, b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not text.endswith(b"\n") or b"Traceback" in text:
            left_s = end_s - time.monotonic()
            if left_s <= 0:
                return f"nothing within {timeout_s:.0f} s"
            if selector.select(left_s):
                piece = stream.read1(4096)  # type: ignore[attr-defined]  # a pipe has it
                if not piece:
                    break
                text += piece
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it ended"


CASES = (
    Case(
        "idle",
        "5,000 idle connections",
        run,
        systems=(System.TULLE, System.ENVOY, System.HAPROXY, System.ZTUNNEL),
        topologies=(Topology.CROSS,),
        once=True,
    ),
)
