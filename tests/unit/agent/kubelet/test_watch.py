"""The watch over the kubelet, in virtual time, with a program in memory."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import pytest

from agent.kubelet import watch
from agent.kubelet.finder import Kubelet
from agent.kubelet.reasons import Unrecognised
from agent.kubelet.watch import KubeletWatch
from tests.support.clock import START, FakeClock
from tests.support.kernel.fake_datapath import FakeKubeletHook

DEADLINE_S = 10


class World:
    def __init__(self, folder: Path, port: int = 10250) -> None:
        self.folder = folder
        self.found: Kubelet | Unrecognised | OSError = Unrecognised.NOT_LISTENING
        self.searches = 0
        self.hook, self.clock = FakeKubeletHook(), FakeClock()
        self.watch = KubeletWatch(self.hook, folder, port, self.clock, self.find)

    async def soon(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not condition():  # noqa: ASYNC110 # of threads and processes
                await asyncio.sleep(0.001)

    def find(self, port: int, root: Path) -> Kubelet | Unrecognised:
        self.searches += 1
        if isinstance(self.found, OSError):
            raise self.found
        return self.found

    def cgroup(self, name: str) -> Path:
        made = self.folder / name
        made.mkdir(exist_ok=True)
        return made

    async def until(self, reason: str | None) -> None:
        """Let it run until this is what it sees; None: a kubelet."""
        await self.soon(lambda: self.watch.status()["reason"] == (reason or ""))


@contextmanager
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as made:
        try:
            yield made
        finally:
            made.kill()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("SEARCH_FIRST_S", "SEARCH_MAX_S"):
        monkeypatch.setattr(watch, name, 0.001)
    return World(tmp_path)


@asynccontextmanager
async def running(world: World) -> AsyncIterator[None]:
    async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(world.watch.run())
        yield
        task.cancel()


def test_port_zero_recognises_nobody(tmp_path: Path) -> None:
    off = World(tmp_path, 0)
    off.hook.attach(off.cgroup("old"), 1)
    asyncio.run(off.watch.run())
    assert off.hook.target() == 0
    assert off.watch.status()["reason"] == "off"


def test_a_restart_of_the_kubelet_in_a_new_cgroup_is_followed(world: World) -> None:
    async def main() -> None:
        with process() as first, process() as second:
            old, new = world.cgroup("old"), world.cgroup("new")
            async with running(world):
                await world.until("not_listening")
                world.found = Kubelet(first.pid, old, ("containerd",))
                await world.until(None)
                assert world.hook.cgroup == old
                assert world.watch.status() == {
                    "port": 10250,
                    "recognised": True,
                    "reason": "",
                    "error": "",
                    "pid": first.pid,
                    "cgroup": str(old),
                    "shared_with": ["containerd"],
                    "since": START.isoformat(),
                }
                world.found = Unrecognised.NOT_LISTENING
                first.kill()
                await world.until("not_listening")
                assert world.hook.cgroup == old  # it may come back there
                world.found = Kubelet(second.pid, new)
                await world.until(None)
                assert world.hook.attached == [old, new]
            assert world.watch.attachments == 2
        assert world.hook.cgroup == new  # the agent stops, the program stays

    asyncio.run(main())


def test_the_cgroup_where_an_earlier_agent_found_it_is_not_attached_again(world: World) -> None:
    async def main() -> None:
        with process() as kubelet:
            world.hook.attach(world.cgroup("old"), 1)
            world.found = Kubelet(kubelet.pid, world.cgroup("old"))
            async with running(world):
                await world.until(None)
            assert world.hook.attached == [world.cgroup("old")]

    asyncio.run(main())


def test_a_kubelet_that_stays_away_is_vouched_for_no_longer(world: World) -> None:
    async def main() -> None:
        world.hook.attach(world.cgroup("old"), 1)
        async with running(world):
            await world.until("not_listening")
            assert world.hook.target()
            world.clock.pass_s(watch.KEPT_S + 1)
            await world.soon(lambda: world.hook.target() == 0)

    asyncio.run(main())


def test_one_that_may_not_be_vouched_for_is_dropped_at_once(world: World) -> None:
    async def main() -> None:
        world.hook.attach(world.cgroup("old"), 1)
        world.found = Unrecognised.ROOT_CGROUP
        async with running(world):
            await world.until("root_cgroup")
            await world.soon(lambda: world.hook.target() == 0)

    asyncio.run(main())


def test_a_kernel_that_refuses_is_asked_again_and_its_words_are_shown(world: World) -> None:
    async def main() -> None:
        with process() as kubelet:
            world.found = Kubelet(kubelet.pid, world.cgroup("new"))
            world.hook.refuses = True
            async with running(world):
                await world.until("kernel")
                assert world.watch.status()["error"] == "no"
                world.hook.refuses = False
                await world.until(None)
                world.found = PermissionError("not yours")
                kubelet.kill()
                await world.until("kernel")
                assert world.watch.status()["error"] == "not yours"

    asyncio.run(main())


def test_a_number_that_is_no_process_any_more_is_no_kubelet(world: World) -> None:
    async def main() -> None:
        with process() as gone:
            gone.kill()
            gone.wait()
        world.found = Kubelet(gone.pid, world.cgroup("old"))
        async with running(world):
            await world.until("searching")
            await world.soon(lambda: world.searches > 2)
        assert world.hook.attached == []

    asyncio.run(main())


def test_a_kubelet_is_looked_at_again_now_and_then(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_AGAIN_S", 0.001)

    async def main() -> None:
        with process() as kubelet:
            world.found = Kubelet(kubelet.pid, world.cgroup("old"))
            async with running(world):
                await world.until(None)
                world.found = Kubelet(kubelet.pid, world.cgroup("new"))
                await world.soon(lambda: world.hook.cgroup == world.cgroup("new"))

    asyncio.run(main())
