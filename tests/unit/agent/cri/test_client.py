"""The client of the container runtime, against the runtime in memory."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from agent.cri.client import NoEvents, RuntimeAway, connected
from tests.support.kube.cri import FakeRuntime, FakeSandbox


def test_the_first_runtime_that_answers_is_taken(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead"))  # its owner does not listen

        async def scenario() -> str:
            failing, runtime = FakeRuntime(fails=True), FakeRuntime()
            candidates = [tmp_path / name for name in ("absent", "dead", "failing", "good")]
            async with (
                failing.serving(candidates[2]),
                runtime.serving(candidates[3]),
                connected(candidates) as found,
            ):
                assert found.socket == candidates[3]
                return found.name

        assert asyncio.run(scenario()) == "containerd 2.1.9+unknown"


def test_nobody_there_is_one_sentence(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with connected([tmp_path / "absent"]):
            pass

    with pytest.raises(RuntimeAway, match=r"no socket at .*absent"):
        asyncio.run(scenario())


def test_a_sandbox_that_is_gone_has_no_place_and_a_failing_runtime_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        runtime = FakeRuntime()
        made = runtime.put(
            FakeSandbox(uid="u", name="web", netns="/run/netns/x", ips=("10.0.0.1",))
        )
        async with runtime.serving(tmp_path / "s"), connected([tmp_path / "s"]) as client:
            found = await client.place(made.id)
            assert found is not None
            assert found.paths == ("/run/netns/x",)
            assert await client.place("absent") is None
            assert [each.uid for each in await client.sandboxes()] == ["u"]
            assert await client.living() == ({made.id}, {made.id})
            runtime.fails = True
            for call in (client.place(made.id), client.sandboxes(), client.living()):
                with pytest.raises(RuntimeAway, match="not initialized"):
                    await call

    asyncio.run(scenario())


def test_events_are_heard_until_the_stream_ends(tmp_path: Path) -> None:
    async def scenario() -> int:
        runtime = FakeRuntime()
        runtime.run(FakeSandbox(uid="u", name="web"))
        heard = 0
        async with runtime.serving(tmp_path / "s"), connected([tmp_path / "s"]) as client:
            async for _ in client.events():
                heard += 1
                if heard == 2:
                    runtime.cut()
        return heard

    assert asyncio.run(scenario()) == 2


@pytest.mark.parametrize(
    "runtime",
    [
        FakeRuntime(has_events=False),
        FakeRuntime(version_text="v1.7.27"),  # it would take them from a kubelet
        FakeRuntime(version_text="1.6.20~ds1"),
    ],
)
def test_a_runtime_without_events_says_so(tmp_path: Path, runtime: FakeRuntime) -> None:
    async def scenario() -> None:
        async with runtime.serving(tmp_path / "s"), connected([tmp_path / "s"]) as client:
            async for _ in client.events():
                pass

    with pytest.raises(NoEvents):
        asyncio.run(scenario())
