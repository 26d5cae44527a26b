"""Enrolment of all pods at once, and what a ztunnel's restart costs their connections."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from agent.enrol.sweep import SWEEP_S
from agent.enrol.uses import PODS_PER_TURN
from agent.lab import changes
from tests.bench import meter
from tests.bench.node.bed import NODE, ManyPods, wait
from tests.support.lab.crowd import CrowdPod, each_of

PROBED = 10  # pods; they are the ones that have connections
PROBE_PAUSE_S = 0.02
PROBE_TIMEOUT_S = 0.1  # a SYN that was lost is repeated after a second, a new one at once
PHASES = ("ztunnel.started", "worker.ready", "xds.synced", "zds.connected", "zds.snapshot")
BEFORE_S, AFTER_S = 2.0, 3.0
SETTLE_S = 12.0  # what was used once is given back


def rest(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
    """Memory, descriptors and kernel objects now."""
    return {name: _size(pid) for name, pid in bed.processes().items()}


def cpu_s(bed: ManyPods) -> dict[str, float]:
    """CPU time by the mesh's cgroups."""
    root = Path(bed.state.cgroup)
    names = (f"agent-{NODE}", f"ztunnel-{NODE}", f"ztunnel-{NODE}.2", "control")
    return {name: meter.cgroup_cpu_s(root / name) for name in names if (root / name).is_dir()}


def difference(after: dict[str, float], before: dict[str, float]) -> dict[str, float]:
    return {name: round(after[name] - before.get(name, 0.0), 2) for name in after}


def _size(pid: int) -> dict[str, float]:
    rollup = dict(
        line.split()[:2] for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    )
    return {
        "rss_mib": round(int(rollup["Rss:"]) / 1024, 1),
        "pss_mib": round(int(rollup["Pss:"]) / 1024, 1),
        "fds": len(os.listdir(f"/proc/{pid}/fd")),
    }


def enrol(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
    """Seconds from the label to the capture of the first, the middle and the last pod."""
    log = bed.log("agent")
    before = len(_times(log, "pod.captured"))
    begun = time.time()  # noqa: TID251 - the log has the same clock
    bed.label(enrolled=True)
    # By its log: a page about all pods would cost the agent more than they do.
    wait(lambda: len(_times(log, "pod.captured")) >= before + len(pods), f"{len(pods)} captured")
    took = sorted(each - begun for each in _times(log, "pod.captured")[before:])
    quantiles = {"first_s": took[0], "middle_s": took[len(took) // 2], "last_s": took[-1]}
    return {name: round(value, 3) for name, value in quantiles.items()}


def _times(log: Path, word: str) -> list[float]:
    lines = [line for line in log.read_text(errors="replace").splitlines() if word in line]
    return [
        datetime.fromisoformat(line.split("\t")[0].replace("Z", "+00:00")).timestamp()
        for line in lines
    ]


def restart(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
    """A ztunnel killed with its workers, and started again."""
    with probed(bed, pods) as probes:
        begun, killed_s = time.time(), time.monotonic()  # noqa: TID251 - the log has the first
        changes.kill(bed.lab, "ztunnel", NODE)
        changes.restart(bed.lab, "ztunnel", NODE)
        ready_s = time.monotonic()
    found = {word: _times(bed.log("ztunnel"), word)[-1] - begun for word in PHASES}
    phases = {word: round(value, 3) for word, value in found.items()}
    return {"ready_s": round(ready_s - killed_s, 3), **probes.outcome(killed_s), **phases}


def roll(bed: ManyPods, pods: list[CrowdPod]) -> dict[str, object]:
    """A newer ztunnel beside the old one, which drains."""
    with probed(bed, pods) as probes:
        begun_s = time.monotonic()
        changes.restart(bed.lab, "ztunnel", NODE)
        ready_s = time.monotonic()
    return {"ready_s": round(ready_s - begun_s, 3), **probes.outcome(begun_s)}


class Probes:
    """New connections of some pods, all the time."""

    def __init__(self, bed: ManyPods, pods: list[CrowdPod]) -> None:
        self._bed = bed
        self._stop = threading.Event()
        self._good: dict[str, list[float]] = {pod.uid: [] for pod in pods}
        self._bad = 0
        self._threads = [threading.Thread(target=self._probe, args=(pod,)) for pod in pods]

    def _probe(self, pod: CrowdPod) -> None:
        while not self._stop.wait(PROBE_PAUSE_S):
            if self._bed.answers(pod, PROBE_TIMEOUT_S):
                self._good[pod.uid].append(time.monotonic())
            else:
                self._bad += 1

    def __enter__(self) -> Probes:
        for thread in self._threads:
            thread.start()
        time.sleep(BEFORE_S)
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(AFTER_S)
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def outcome(self, since_s: float) -> dict[str, object]:
        """The longest time without an answer, of the luckiest and of the unluckiest pod."""
        away = sorted(
            max(later - max(earlier, since_s) for earlier, later in _pairs(good, since_s))
            for good in self._good.values()
        )
        names = ("away_least_s", "away_middle_s", "away_most_s")
        found = (away[0], away[len(away) // 2], away[-1])
        return {**{n: round(v, 3) for n, v in zip(names, found, strict=True)}, "failed": self._bad}


def _pairs(good: list[float], since_s: float) -> Iterator[tuple[float, float]]:
    for earlier, later in itertools.pairwise(good):
        if later > since_s:
            yield earlier, later


@contextmanager
def probed(bed: ManyPods, pods: list[CrowdPod]) -> Iterator[Probes]:
    wait(lambda: bed.captured() == len(pods), f"{len(pods)} captured")
    chosen = pods[:: max(1, len(pods) // PROBED)][:PROBED]
    # Until the agent has seen each of them twice: pods that have connections are served first.
    for _ in range(0 if bed.in_use else 2 * (1 + len(pods) // PODS_PER_TURN)):
        each_of(chosen, bed.answers)
        time.sleep(SWEEP_S)
    bed.in_use = True
    with Probes(bed, chosen) as probes:
        yield probes
