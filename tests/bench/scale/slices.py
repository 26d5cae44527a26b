"""The longest step of a publication: the time for which nobody else has the loop, besides a slice.

    python -m tests.bench.scale.slices 10000

Milliseconds of CPU, for changes of many objects at once in a mesh of that many pods, in one process
without source and streams. The collector is asked as a control plane asks it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from control.kit.clock import SystemClock
from control.kit.memory import examine_young, spare_collector, uncollected
from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.sources.folder import Folder
from control.server.sources.objects import AnyObject, Key, Namespace, PodObject
from control.server.sources.snapshot import Snapshot
from control.server.xds.publish import SLICE_S, Publisher
from tests.bench.scale.mesh import LargeMesh, text

Changed = Mapping[Key, AnyObject | None]
PODS_OF_A_FILE = 2000


def changes(world: Changed) -> Iterator[tuple[str, Changed]]:
    pods = [each for each in world.values() if isinstance(each, PodObject)]
    spaces = [each for each in world.values() if isinstance(each, Namespace)]
    policies = {key: each for key, each in world.items() if key.kind == "AuthorizationPolicy"}
    some = pods[:PODS_OF_A_FILE]
    yield "2,000 pods relabelled", {each.meta.key: _relabelled(each, "v2") for each in some}
    yield "all pods relabelled", {each.meta.key: _relabelled(each, "v3") for each in pods}
    yield "all namespaces leave", {each.meta.key: _unlabelled(each) for each in spaces}
    yield "all namespaces come back", {each.meta.key: each for each in spaces}
    yield "all policies gone", dict.fromkeys(policies)
    yield "all policies back", policies
    yield "all pods gone", dict.fromkeys(each.meta.key for each in pods)


def _relabelled(pod: PodObject, version: str) -> PodObject:
    return replace(pod, meta=replace(pod.meta, labels={**pod.meta.labels, "version": version}))


def _unlabelled(space: Namespace) -> Namespace:
    return replace(space, meta=replace(space.meta, labels={}))


def longest_ms(publisher: Publisher, snapshot: Snapshot) -> tuple[float, float]:
    """CPU of the longest step, and of all of them."""
    publisher.offer(snapshot)
    longest_ns = all_ns = 0
    steps = publisher._steps()
    slice_s = time.perf_counter()
    done = object()
    while True:
        started_ns = time.thread_time_ns()
        ended = next(steps, done) is done
        if ended or time.perf_counter() - slice_s >= SLICE_S:
            examine_young()
            slice_s = time.perf_counter()
        step_ns = time.thread_time_ns() - started_ns
        longest_ns, all_ns = max(longest_ns, step_ns), all_ns + step_ns
        if ended:
            return longest_ns / 1e6, all_ns / 1e6


def main(pods: int) -> int:
    spare_collector()
    with tempfile.TemporaryDirectory() as name, uncollected():
        folder = Folder()
        folder.load("all.yaml", text(LargeMesh(pods, 500).manifests()).encode())
        whole = folder.snapshot()
        captured = CapturedSet(Path(name) / "captured", is_new=True)
        publisher = Publisher(Settings(), captured, Metrics(), SystemClock())
        publisher.offer(whole)
        publisher.publish()
    for what, changed in changes(dict(whole.changed)):
        longest, everything = longest_ms(publisher, replace(whole, changed=changed, is_whole=False))
        sys.stdout.write(f"{what:28}{longest:8.2f} ms of {everything:8.0f} ms\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
