"""Pods that come and go, twenty at a time: what the processes and the kernel hold meanwhile."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.bench.model import BenchError
from tests.bench.node import steps
from tests.bench.node.bed import ManyPods

AT_ONCE = 20
WARM_UP = 200  # pods until all that is made once is there
PLACES = 2000  # above those of the bed
SHOW_EVERY = 500


def run(bed: ManyPods, count: int, seconds: float) -> dict[str, object]:
    """`count` pods, or as many as there is time for; how much more is held after each thousand."""
    bed.label(enrolled=True)
    begun_s = time.monotonic()
    done, bad = 0, 0
    first: dict[str, float] = {}
    while done < count and time.monotonic() - begun_s < seconds:
        pods = [
            bed.pod("l", number, PLACES + number % PLACES) for number in range(done, done + AT_ONCE)
        ]
        failures = bed.come_and_go(pods)
        bad += len(failures)
        if bad > count // 100:
            raise BenchError(f"{bad} of {done} pods: {failures[:3]}")
        done += AT_ONCE
        if done >= WARM_UP and not first:
            first = _now(bed)
        if done % SHOW_EVERY == 0:
            sys.stderr.write(f"{done:>8} pods {time.monotonic() - begun_s:.0f} s  {_now(bed)}\n")
    time.sleep(steps.SETTLE_S)
    last = _now(bed)
    more = {name: last[name] - first[name] for name in first}
    thousands = (done - WARM_UP) / 1000
    each = {name: round(value / thousands, 2) for name, value in more.items() if value}
    return {"pods": done, "bad": bad, "first": first, "last": last, "more_each_1000": each}


def _now(bed: ManyPods) -> dict[str, float]:
    found: dict[str, float] = dict(bed.held())
    for name, pid in bed.processes().items():
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                found[f"MiB of {name}"] = round(int(line.split()[1]) / 1024, 1)
            elif line.startswith("Threads:"):
                found[f"threads of {name}"] = int(line.split()[1])
    return found
