"""Lines that agents and workers may say to each other, and those they may not."""

from __future__ import annotations

import asyncio

import pytest

from control.kit.errors import WireError
from control.wire.direct import (
    LINE_BYTES_MAX,
    Cut,
)
from tests.unit.ztunnel.supervisor.agent_link_rig import (
    FAR,
    POLICY,
    Bench,
    FakeWorkers,
    Line,
    run,
)
from ztunnel.supervisor.direct import DirectHub


@pytest.mark.parametrize(
    "answer",
    [
        b'{"kind":"hello","version":2,"lease_s":2}\n',
        b'{"kind":"hello","version":1,"lease_s":0}\n',
        b'{"kind":"hello","version":1,"lease_s":3600}\n',
        b'{"kind":"generation","generation":1}\n',
        b"[]\n",
        b"nonsense\n",
        b"x" * (LINE_BYTES_MAX + 10),
        b"",
    ],
)
def test_an_agent_of_another_kind_is_left(answer: bytes) -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.agent()
        agent.writer.write(answer)
        if not answer:
            agent.writer.write_eof()
        await bench.until(lambda: bool(bench.link.status.error))
        assert not bench.link.status.connected
        assert bench.workers.direct == []

    run(test)


def test_a_number_that_was_never_said_is_no_answer() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        agent.say({"kind": "generation", "generation": bench.link.generation + 1})
        await bench.until(lambda: bool(bench.link.status.error))

    run(test)


def test_unknown_kinds_are_passed_over() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        agent.say({"kind": "future"})
        agent.say({"kind": "moved", "flows": [[4, 1, 1]]})
        await bench.until(lambda: (0, _moved([4, 1, 1])) in bench.workers.direct)
        assert bench.link.status.unknown_kinds == 1

    run(test)


def _moved(*flows: list[int]) -> Line:
    return {"kind": "moved", "flows": list(flows)}


def test_each_flow_has_its_worker() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        agent.say(_moved([1, 0, 0], [2, 0, 0], [3, 0, 0]))
        agent.say({"kind": "closed", "flows": [{"id": 7}]})
        await bench.until(lambda: len(bench.workers.direct) == 5)
        assert bench.workers.direct[2:] == [
            (1, _moved([1, 0, 0], [3, 0, 0])),
            (0, _moved([2, 0, 0])),
            (1, {"kind": "closed", "flows": [{"id": 7}]}),
        ]

    run(test)


def test_workers_lines_go_up_and_a_lost_worker_is_forgotten() -> None:
    slot = {"weight": 1, "destination": "b", "address": "10.0.0.2", "port": 8080}
    share = {"kind": "service", "source": "a", "vip": "10.1.0.1", "port": 80, "total": 1}
    verdict = {"kind": "verdict", "generation": 1, "source": "a", "destination": "b", "port": 1}

    async def test(bench: Bench) -> None:
        bench.said(0, **share, slots=[slot])  # nobody there: not told, but known
        agent = await bench.greeted()
        bench.said(0, **verdict)
        bench.said(1, kind="cut", id=3)
        bench.said(0, **share, slots=[slot])
        bench.hub.worker_lost(0)
        bench.hub.worker_lost(1)
        assert [await agent.hear() for _ in range(3)] == [
            verdict,
            {"kind": "cut", "id": 3},
            {**share, "slots": [slot]},
        ]
        assert await agent.hear() == {**share, "total": 0, "slots": []}
        bench.hub.replay()
        assert await agent.hear() == {"kind": "replay"}

    run(test)


@pytest.mark.parametrize(
    "line",
    [
        {},
        {"kind": "generation", "generation": 1},
        {"kind": "hello", "version": 1, "generation": 1},
        {"kind": "replay"},
        {"kind": "future"},
    ],
)
def test_a_worker_says_only_what_is_its_to_say(line: Line) -> None:
    async def test(bench: Bench) -> None:
        with pytest.raises(WireError):
            bench.said(0, **line)

    run(test)


def test_without_a_direct_path_everything_just_passes() -> None:
    workers = FakeWorkers()
    hub = DirectHub(workers)
    asyncio.run(hub.publish([POLICY, FAR], set()))
    assert workers.told == [POLICY.name, FAR.name]
    with pytest.raises(WireError):
        hub.said(0, Cut(1))
