"""The longest step of long work: the time for which nobody else has the loop, besides a slice.

    python -m tests.bench.scale.slices 10000

Milliseconds of CPU, in one process without source and streams: changes of many objects at once in a
mesh of that many pods, a source that comes back, what the first node and the first name cost. The
collector is asked as a control plane asks it.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from control.kit.clock import SystemClock
from control.kit.memory import examine_young, freeze, spare_collector, uncollected
from control.kit.slices import SLICE_S
from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.sources.directory import DirectorySource
from control.server.sources.folder import Folder
from control.server.sources.lasting import LastingSource
from control.server.sources.objects import AnyObject, Key, Namespace, PodObject
from control.server.sources.snapshot import Snapshot
from control.server.sources.state_file import StateFile
from control.server.xds.publish import Publisher
from control.server.xds.shelf import ShelfPlace
from control.wire.delta import Word
from control.wire.types import ADDRESS_TYPE
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


def longest_ms(steps: Iterator[object]) -> tuple[float, float]:
    """CPU of the longest step, and of all of them."""
    longest_ns = all_ns = 0
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


def say(what: str, steps: Iterator[object]) -> None:
    longest, everything = longest_ms(steps)
    sys.stdout.write(f"{what:28}{longest:8.2f} ms of {everything:8.0f} ms\n")


def publication(publisher: Publisher, snapshot: Snapshot) -> Iterator[None]:
    publisher.offer(snapshot)
    yield
    yield from publisher._steps()


def coming_back(text_of_it: bytes, folder: Path) -> LastingSource:
    """A source that has said what is in force already, which was read from disk."""
    kept, live = Folder(), Folder()
    for each in (kept, live):
        each.load("all.yaml", text_of_it)
    file = StateFile(folder / "state", "bench")
    source = LastingSource(DirectorySource(folder, SystemClock()), file, SystemClock())
    source._put(kept.snapshot().changed)
    source._owed, source._owes_all = dict(live.snapshot().changed), True
    freeze()
    return source


def first_node(publisher: Publisher) -> Iterator[None]:
    found = publisher.cache.shelf(ADDRESS_TYPE, "node").difference(0)
    yield
    yield from found.tell(0, "", Word.WHOLE, with_removed=True, is_own=False).steps()


def main(pods: int) -> int:
    spare_collector()
    content = text(LargeMesh(pods, 500).manifests()).encode()
    with tempfile.TemporaryDirectory() as name:
        with uncollected():
            folder = Folder()
            folder.load("all.yaml", content)
            whole = folder.snapshot()
            captured = CapturedSet(Path(name) / "captured", is_new=True)
            publisher = Publisher(Settings(), captured, Metrics(), SystemClock())
            publisher.offer(whole)
            publisher.publish()
        say("first node is told", first_node(publisher))
        say("first name is asked for", publisher.cache.index_steps())
        source = coming_back(content, Path(name))
        say("source comes back", source._pay())
    shelf = publisher.cache.shelf(ADDRESS_TYPE, "node")
    reader = ShelfPlace(shelf.latest)  # somebody to whom changes are told
    shelf.places.add(reader)
    for what, changed in changes(dict(whole.changed)):
        reader.at = shelf.latest
        say(what, publication(publisher, replace(whole, changed=changed, is_whole=False)))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000))
