"""The price of capture in connect(): for enrolled pods, and for processes outside the mesh.

The second is measured without a lab: the agent's kernel half is attached to one cgroup, nothing to
its sibling, and one process changes between the two every few milliseconds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.datapath import bpffs, cgroups, folder
from agent.datapath.node import NodeDatapath
from tests.bench.bed import Bed, tool_command
from tests.bench.cases.case import GRACE_S, Case, Settings, Values
from tests.bench.target import Target

NAME = "tb-capture"


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    """connect() towards a server, as an application sees it."""
    host, port = target.echo
    text = bed.tool(
        target.client,
        "connects.py",
        *(host, port, "--seconds", settings.seconds),
        timeout_s=settings.seconds + GRACE_S,
    )
    return {"connect_us": statistics.median(map(float, text.split()))}


def not_enrolled(core: int, cache: Path, seconds: float) -> Values:
    """connect() of a process that is in no mesh, with and without our programs at its cgroup."""
    with _two_groups(cache) as (with_programs, without):
        words = tool_command(
            "connects.py", "--local", "--cgroups", with_programs, without, "--seconds", seconds
        )
        done = subprocess.run(
            ["taskset", "-c", str(core), *words],
            capture_output=True,
            text=True,
            timeout=seconds + GRACE_S,
            check=True,
        )
    rows = [tuple(map(float, line.split())) for line in done.stdout.splitlines()]
    return {
        "attached_us": statistics.median(attached for attached, _ in rows),
        "plain_us": statistics.median(plain for _, plain in rows),
        "attached_ratio": statistics.median(attached / plain for attached, plain in rows),
    }


@contextmanager
def _two_groups(cache: Path) -> Iterator[tuple[Path, Path]]:
    root, pins = cgroups.find_root(), bpffs.ensure(Path("/sys/fs/bpf")) / NAME
    groups = [root / f"{NAME}-{letter}" for letter in "ab"]
    _clean(pins, groups)  # left by a run that was killed
    try:
        for group in groups:
            cgroups.create(group)
        node = NodeDatapath.open(pins, groups[0], cache)
        try:
            yield groups[0], groups[1]
        finally:
            node.destroy()
    finally:
        _clean(pins, groups)


def _clean(pins: Path, groups: list[Path]) -> None:
    if pins.exists():
        for version in folder.versions(pins):
            version.remove()
        folder.unpin(pins)
    for group in groups:
        if group.exists():
            for pid in cgroups.members(group):
                os.kill(pid, 9)
            cgroups.remove(group)


CASES = (Case("capture", "what capture adds to connect()", run),)
