"""Readings of the machine: CPU time and memory by owner. Reads only; decides nothing."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

from agent.lab.netns import inside
from tests.bench.model import foreign_share

_TICK_S = 1 / os.sysconf("SC_CLK_TCK")
_BUSY = (0, 1, 2, 5, 6)  # user nice system irq softirq; steal belongs to no process here


def cgroup_cpu_s(cgroup: Path) -> float:
    """CPU time of all processes that run or ran in the cgroup, to the microsecond."""
    for line in (cgroup / "cpu.stat").read_text().splitlines():
        name, _, value = line.partition(" ")
        if name == "usage_usec":
            return int(value) / 1e6
    return 0.0


def cores_busy_s(cores: frozenset[int]) -> float:
    """CPU time of the cores that we use; on a large machine the others do not matter."""
    wanted = {f"cpu{core}" for core in cores}
    busy = 0
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name in wanted:
            busy += sum(int(fields[index]) for index in _BUSY)
    return busy * _TICK_S


def process_cpu_s(pid: int) -> float:
    """CPU time of one living process, all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * _TICK_S


def received_bytes(netns: str, link: str) -> int:
    with inside(netns):
        table = Path("/proc/thread-self/net/dev").read_text()
    for line in table.splitlines():
        name, _, rest = line.partition(":")
        if name.strip() == link:
            return int(rest.split()[0])
    return 0


def members(cgroup: Path) -> list[int]:
    """All processes in the tree, those of its root first, oldest first."""
    found: list[int] = []
    for folder in (cgroup, *sorted(cgroup.rglob("*/"))):
        found += sorted(map(int, (folder / "cgroup.procs").read_text().split()))
    return found


def program_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def rss_mib(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    for line in text.splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def pin(cgroup: Path, cores: set[int]) -> None:
    """Every thread that is in there now; what they start inherits it."""
    for pid in members(cgroup):
        for task in threads(pid):
            try:
                os.sched_setaffinity(task, cores)
            except ProcessLookupError:
                continue


def yield_to_others(cgroup: Path) -> None:
    """Let the cgroup's processes run only when their core has nothing else to do."""
    for pid in members(cgroup):
        for task in threads(pid):
            try:
                os.sched_setscheduler(task, os.SCHED_IDLE, os.sched_param(0))
            except ProcessLookupError:
                continue


def threads(pid: int) -> list[int]:
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]
    except FileNotFoundError:
        return []


@dataclass(frozen=True, slots=True)
class Window:
    """CPU time by owner, from its creation to `foreign()`. Ours is the lab and this process."""

    cores: frozenset[int]
    lab: Path | None
    started_s: float
    busy_s: float
    ours_s: float

    @classmethod
    def open(cls, cores: frozenset[int], lab: Path | None) -> Window:
        return cls(cores, lab, time.monotonic(), cores_busy_s(cores), _ours_s(lab))

    def foreign(self) -> float:
        wall_s = time.monotonic() - self.started_s
        busy_s = cores_busy_s(self.cores) - self.busy_s
        return foreign_share(busy_s, _ours_s(self.lab) - self.ours_s, wall_s, len(self.cores))


def _ours_s(lab: Path | None) -> float:
    """Helpers outside the lab's cgroup are counted when they have ended and were waited for."""
    used = os.times()
    own_s = used.user + used.system
    if lab is None:
        return own_s + used.children_user + used.children_system
    return own_s + cgroup_cpu_s(lab)
