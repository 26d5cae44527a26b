"""A source with its last good state on disk: what a start serves, and what is doubted."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from control.kit.errors import ConfigError
from control.server.sources.folder import Folder
from control.server.sources.inventory import Inventory
from control.server.sources.lasting import GONE_MIN, GUARDED_MIN, HELD_S, LastingSource
from control.server.sources.objects import Objects
from control.server.sources.snapshot import Snapshot
from control.server.sources.state_file import StateFile
from tests.support.manifests import load, pod
from tests.support.virtual_time import TwoClocks, run_virtual

MINUTE = timedelta(seconds=60)
WIPED = "there is nothing"
EMPTY = Snapshot(Inventory(), {}, doubt=WIPED, is_whole=True)


def holding(count: int) -> Snapshot:
    text = "".join(pod(name=f"web-{number}") for number in range(count))
    return load(text)


FEW, MANY = holding(2), holding(GUARDED_MIN)


class ScriptedSource:
    """Says what a test tells it to say."""

    def __init__(self) -> None:
        self.name = "script"
        self.trouble = ""
        self.said: asyncio.Queue[Snapshot] = asyncio.Queue()

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[AsyncIterator[Snapshot]]:
        yield self._snapshots()

    async def _snapshots(self) -> AsyncIterator[Snapshot]:
        while True:
            yield await self.said.get()


class LastingBench:
    def __init__(self, path: Path, clock: TwoClocks) -> None:
        self.inner = ScriptedSource()
        self.clock = clock
        self.file = StateFile(path, "script")
        self.source = LastingSource(self.inner, self.file, clock)

    async def kept(self, holds: Callable[[Objects], bool]) -> None:
        """Wait until such a state is on disk."""
        async with asyncio.timeout(100_000):
            found = self.file.load()
            while found is None or not holds(found.objects):
                await asyncio.sleep(0.5)
                found = self.file.load()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state"


def with_bench(path: Path, act: Callable[[LastingBench, AsyncIterator[Snapshot]], object]) -> None:
    async def whole() -> None:
        bench = LastingBench(path, TwoClocks())
        async with bench.source.opened() as snapshots:
            done = act(bench, snapshots)
            if asyncio.iscoroutine(done):
                await done

    run_virtual(whole())


def put(path: Path, snapshot: Snapshot, at: datetime | None = None) -> None:
    moment = at or TwoClocks()._start - timedelta(hours=3)
    assert StateFile(path, "script").save(snapshot.objects, moment)


def test_what_the_source_says_is_served_and_kept(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(FEW)
        assert (await anext(snapshots)).objects == FEW.objects
        await bench.kept(lambda found: found == FEW.objects)
        bench.inner.said.put_nowait(MANY)
        assert (await anext(snapshots)).objects == MANY.objects
        await bench.kept(lambda found: found == MANY.objects)
        assert bench.source.standing.age_s == 0

    with_bench(path, act)


def test_a_state_at_the_end_is_kept_at_once(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(FEW)
        await anext(snapshots)

    with_bench(path, act)
    kept = StateFile(path, "script").load()
    assert kept is not None
    assert kept.objects == FEW.objects


def test_a_start_without_the_source_serves_the_last_good_state(path: Path) -> None:
    put(path, FEW)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.trouble = "it is away"
        found = await anext(snapshots)
        assert found.objects == FEW.objects
        (problem,) = found.problems
        assert "the last good state, of 2025-12-31 21:00:00 UTC, is in force" in problem.message
        standing = bench.source.standing
        assert (standing.is_kept, standing.trouble) == (True, "it is away")
        assert standing.age_s >= 3 * 3600
        bench.inner.trouble = ""
        bench.inner.said.put_nowait(MANY)
        assert (await anext(snapshots)).objects == MANY.objects
        assert not bench.source.standing.is_kept
        assert bench.source.standing.age_s == 0

    with_bench(path, act)


def test_a_source_that_is_slow_is_not_waited_for_without_end(path: Path) -> None:
    put(path, FEW)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        found = await anext(snapshots)
        assert found.objects == FEW.objects
        assert bench.clock.monotonic_s() >= 30

    with_bench(path, act)


def test_a_kept_state_is_never_put_over_what_the_source_says(path: Path) -> None:
    put(path, MANY)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(FEW)
        assert (await anext(snapshots)).objects == FEW.objects
        bench.inner.trouble = "it went away"
        waiting = asyncio.ensure_future(anext(snapshots))  # noqa: TID251  # cancelled below
        await asyncio.wait((waiting,), timeout=1000)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.wait((waiting,))
        assert bench.source.standing.age_s >= 990

    with_bench(path, act)


def test_a_kept_state_is_not_written_back_as_if_it_were_new(path: Path) -> None:
    put(path, FEW)
    before = path.stat().st_mtime_ns

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.trouble = "it is away"
        await anext(snapshots)
        await asyncio.sleep(1000)

    with_bench(path, act)
    assert path.stat().st_mtime_ns == before


def test_a_state_that_goes_on_is_kept_as_of_now(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(FEW)
        await anext(snapshots)
        await bench.kept(lambda found: found == FEW.objects)
        inode = os.stat(path).st_ino
        await asyncio.sleep(1000)
        # Virtual time runs on while a real thread writes, and a slow write makes a long pause.
        async with asyncio.timeout(10_000_000):
            kept = bench.file.load()
            while kept is None or kept.current_at < bench.clock.now() - MINUTE:
                await asyncio.sleep(30)
                kept = bench.file.load()
        assert os.stat(path).st_ino == inode

    with_bench(path, act)


def test_all_gone_at_once_is_doubted(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(MANY)
        await anext(snapshots)
        await bench.kept(lambda found: found == MANY.objects)
        bench.inner.said.put_nowait(EMPTY)
        found = await anext(snapshots)
        assert found.objects == MANY.objects
        assert found.changed == {}
        (problem,) = found.problems
        assert problem.message == f"{WIPED}; the last good state stays in force"
        await asyncio.sleep(100)
        await bench.kept(lambda found: found == MANY.objects)
        assert bench.source.standing.age_s >= 90
        bench.inner.said.put_nowait(FEW)
        assert (await anext(snapshots)).objects == FEW.objects

    with_bench(path, act)


def test_nothing_at_a_start_is_doubted_when_there_was_much(path: Path) -> None:
    put(path, MANY)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(EMPTY)
        found = await anext(snapshots)
        assert found.objects == MANY.objects
        bench.inner.said.put_nowait(replace(EMPTY, doubt=""))  # said once more, on purpose
        assert (await anext(snapshots)).objects == Objects()

    with_bench(path, act)


def test_a_few_objects_may_all_go(path: Path) -> None:
    put(path, FEW)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(EMPTY)
        assert (await anext(snapshots)).objects == EMPTY.objects
        await bench.kept(lambda found: found == Objects())

    with_bench(path, act)


def test_a_file_that_cannot_be_used_is_as_none(path: Path) -> None:
    path.write_bytes(b"broken")

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.trouble = "it is away"
        waiting = asyncio.ensure_future(anext(snapshots))  # noqa: TID251  # ends below
        await asyncio.wait((waiting,), timeout=100)
        assert not waiting.done()
        bench.inner.said.put_nowait(FEW)
        assert (await waiting).objects == FEW.objects

    with_bench(path, act)


def test_a_callers_own_failure_is_passed_on_as_it_is(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        raise ConfigError("mine")

    with pytest.raises(ConfigError, match="mine"):
        with_bench(path, act)


def test_nothing_that_the_source_said_is_lost_when_it_is_not_asked_for_it(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        folder = Folder()
        bench.inner.said.put_nowait(folder.snapshot())
        assert (await anext(snapshots)).is_whole
        for number in range(5):
            folder.load(f"{number}.yaml", pod(f"p{number}").encode())
            bench.inner.said.put_nowait(folder.snapshot())
        folder.forget("3.yaml")
        bench.inner.said.put_nowait(folder.snapshot())
        found = await anext(snapshots)
        while found.counts()["Pod"] < 4:
            found = await anext(snapshots)
        assert [each.meta.name for each in found.objects.pods] == ["p0", "p1", "p2", "p4"]

    with_bench(path, act)


def test_a_source_that_is_back_names_only_what_differs_from_the_kept_state(path: Path) -> None:
    put(path, MANY)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.trouble = "it is away"
        assert (await anext(snapshots)).is_whole
        bench.inner.trouble = ""
        text = "".join(pod(name=f"web-{number}") for number in range(1, GUARDED_MIN))
        bench.inner.said.put_nowait(load("\n" * pod().count("\n") + text + pod("new")))
        found = await anext(snapshots)
        assert not found.is_whole
        assert {key.name: each is None for key, each in found.changed.items()} == {
            "web-0": True,
            "new": False,
        }

    with_bench(path, act)


CROWD = holding(GONE_MIN + 10)


@pytest.mark.parametrize("is_running", [True, False])
def test_nearly_all_gone_at_once_is_doubted_until_they_are_back(
    path: Path, is_running: bool
) -> None:
    put(path, CROWD)

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        if is_running:
            bench.inner.said.put_nowait(CROWD)
            await anext(snapshots)
        bench.inner.said.put_nowait(load("".join(map(pod, ("web-0", "new")))))
        found = await anext(snapshots)
        assert found.counts()["Pod"] == len(CROWD.objects) + 1, "others come all the while"
        assert found.is_whole is not is_running
        (problem,) = found.problems
        assert "59 objects are gone, more than 90% of 60 objects went at once" in problem.message
        assert "10 minutes, or until --gone-share 1" in problem.message
        bench.inner.said.put_nowait(load("".join(pod(f"web-{number}") for number in range(12))))
        found = await anext(snapshots)
        assert (found.counts()["Pod"], found.problems) == (12, ())

    with_bench(path, act)


def test_nearly_all_are_gone_when_they_stay_away(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(CROWD)
        await anext(snapshots)
        bench.inner.said.put_nowait(FEW)
        started_s = bench.clock.monotonic_s()
        assert (await anext(snapshots)).problems
        found = await anext(snapshots)
        assert (found.objects, found.problems) == (FEW.objects, ())
        assert HELD_S <= bench.clock.monotonic_s() - started_s < HELD_S + 5

    with_bench(path, act)


def test_nearly_all_may_be_others_at_once(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(CROWD)
        await anext(snapshots)
        others = load("".join(pod(f"other-{number}") for number in range(GONE_MIN)))
        bench.inner.said.put_nowait(others)
        assert (await anext(snapshots)).objects == others.objects

    with_bench(path, act)


def test_nearly_all_may_go_if_that_is_said(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.source._gone_share = 1.0
        bench.inner.said.put_nowait(CROWD)
        await anext(snapshots)
        bench.inner.said.put_nowait(FEW)
        assert (await anext(snapshots)).objects == FEW.objects

    with_bench(path, act)


def test_a_namespace_may_go_with_all_that_is_in_it(path: Path) -> None:
    shop, other = (
        f"---\n{{apiVersion: v1, kind: Namespace, metadata: {{name: {name}}}}}\n"
        for name in ("shop", "other")
    )
    pods = "".join(pod(name=f"web-{number}") for number in range(GONE_MIN + 10))

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(load(other + shop + pods))
        await anext(snapshots)
        bench.inner.said.put_nowait(load(other))
        found = await anext(snapshots)
        assert (found.counts()["Namespace"], found.counts()["Pod"]) == (1, 0)

    with_bench(path, act)


def test_a_change_is_appended_to_the_state_on_disk(path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(MANY)
        await anext(snapshots)
        await bench.kept(lambda found: found == MANY.objects)
        inode = os.stat(path).st_ino
        bench.inner.said.put_nowait(FEW)
        await anext(snapshots)
        await bench.kept(lambda found: found == FEW.objects)
        assert os.stat(path).st_ino == inode

    with_bench(path, act)
