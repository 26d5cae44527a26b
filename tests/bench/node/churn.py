"""Pods that come and go: the time until each may start, and what is left behind at the end."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.bench.node import steps
from tests.bench.node.bed import ManyPods
from tests.support.lab.crowd import CrowdPod

PERIOD_S = 0.25
LIFE_S = 5.0
PLACES = 2000  # addresses that are given in turn
THREADS = 24


class Churn:
    def __init__(self, bed: ManyPods) -> None:
        self._bed = bed
        self._lock = threading.Lock()
        self.took_s: list[float] = []
        self.bad: list[str] = []

    def come(self, pod: CrowdPod) -> None:
        status: Any
        try:
            status, took_s = self._bed.register(pod)
        except Exception as exc:
            status, took_s = repr(exc), 0.0
        with self._lock:
            if status == 200:
                self.took_s.append(took_s)
            else:
                self.bad.append(f"{pod.name}: {status}")

    def go(self, pod: CrowdPod) -> None:
        try:
            status: Any = self._bed.delete(pod)
        except Exception as exc:
            status = repr(exc)
        if status != 200:
            with self._lock:
                self.bad.append(f"{pod.name} goes: {status}")
        self._bed.remove(pod)


def run(bed: ManyPods, rate: float, seconds: float) -> dict[str, object]:
    """`rate` new pods a second for so long, each of which lives for some seconds."""
    before = steps.rest(bed, [])
    work = Churn(bed)
    living: list[tuple[float, CrowdPod]] = []  # with their time of birth
    numbers = itertools.count()
    begun_s = next_s = time.monotonic()
    coming: list[futures.Future[None]] = []
    behind_s = 0.0
    with ThreadPoolExecutor(THREADS) as pool:
        while time.monotonic() - begun_s < seconds:
            fresh = []
            for number in itertools.islice(numbers, round(rate * PERIOD_S)):
                fresh.append(bed.pod("c", number, 2000 + number % PLACES))
                bed.build(fresh[-1])
            now_s = time.monotonic()
            gone = [pod for born_s, pod in living if now_s - born_s > LIFE_S]
            living = [(born_s, pod) for born_s, pod in living if now_s - born_s <= LIFE_S]
            living += [(now_s, pod) for pod in fresh]
            bed.write("churn.yaml", [pod.manifest() for _, pod in living])
            for pod in gone:
                pool.submit(work.go, pod)
            coming = [pool.submit(work.come, pod) for pod in fresh]
            next_s += PERIOD_S
            behind_s = max(behind_s, time.monotonic() - next_s)
            time.sleep(max(0.0, next_s - time.monotonic()))
        ran_s = time.monotonic() - begun_s
        futures.wait(coming)
        bed.write("churn.yaml", [])
        for _, pod in living:
            pool.submit(work.go, pod)
    time.sleep(steps.SETTLE_S)
    took = sorted(work.took_s)
    return {
        "pods": next(numbers),
        "rate": round(len(took) / ran_s, 1),
        "p50_s": round(took[len(took) // 2], 3),
        "p99_s": round(took[int(len(took) * 0.99)], 3),
        "most_s": round(took[-1], 3),
        "bad": len(work.bad),
        "first_bad": work.bad[:4],
        "behind_s": round(behind_s, 2),
        "pods_left": bed.captured(),
        "before": before,
        "after": steps.rest(bed, []),
        "maps": {each["name"]: each["used"] for each in bed.status()["maps"]},
    }
