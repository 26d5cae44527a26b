"""The queue of connections to end, where no namespace can be looked into."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from agent.datapath.flows import FlowReport
from agent.direct.cuts import Cuts
from agent.direct.flows import DirectFlow
from agent.registry import NamespaceGone
from control.model.address import parse_endpoint
from tests.support.turns import turns_until

CLIENT, TARGET = parse_endpoint("10.0.0.1:40000"), parse_endpoint("10.0.0.2:80")


def flow(number: int) -> DirectFlow:
    report = FlowReport(number, False, 1, 2, CLIENT, TARGET, TARGET)
    return DirectFlow(report, "source", "destination", 0.0)


def test_both_ends_are_tried_and_a_failure_is_counted_once() -> None:
    asked: list[str] = []

    @contextmanager
    def netns_of(uid: str) -> Iterator[int]:
        asked.append(uid)
        raise NamespaceGone(uid)
        yield -1

    async def scenario() -> None:
        cuts = Cuts(netns_of)
        for number in (1, 2, 1):  # the first one is asked for twice
            cuts.add(flow(number))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(cuts.run())
            await turns_until(lambda: cuts.counts.failed == 2)
            task.cancel()
        assert (cuts.counts.destroyed, cuts.counts.over) == (0, 0)

    asyncio.run(scenario())
    assert asked == ["source", "destination"] * 2


def test_a_connection_that_is_over_is_no_failure() -> None:
    @contextmanager
    def own_namespace(uid: str) -> Iterator[int]:
        with open("/proc/self/ns/net", "rb") as own:
            yield own.fileno()

    async def scenario() -> None:
        cuts = Cuts(own_namespace)
        cuts.add(flow(1))
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(cuts.run())
            counts = cuts.counts
            await turns_until(lambda: counts.over + counts.failed == 1)  # without root: failed
            task.cancel()
        assert cuts.counts.destroyed == 0

    asyncio.run(scenario())
