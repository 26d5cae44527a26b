"""Work in the order of its keys, at most so much at once, with turns for others between."""

from __future__ import annotations

import asyncio

from control.kit.work_queue import WorkQueue


def test_the_oldest_keys_come_first_and_newer_work_takes_the_place_of_older() -> None:
    async def act() -> None:
        backlog: WorkQueue[int, str] = WorkQueue()
        for number, work in ((1, "a"), (2, "b"), (3, "c"), (1, "d")):
            backlog.add(number, work)
        assert await backlog.take(2) == [(1, "d"), (2, "b")]
        assert len(backlog) == 1
        assert await backlog.take(2) == [(3, "c")]

    asyncio.run(act())


def test_who_takes_waits_for_work() -> None:
    async def act() -> None:
        backlog: WorkQueue[int, str] = WorkQueue()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            taking = tasks.create_task(backlog.take(1), name="take")
            await asyncio.sleep(0)
            assert not taking.done()
            backlog.add(1, "a")
            assert await taking == [(1, "a")]
            again = tasks.create_task(backlog.take(1), name="take")
            await asyncio.sleep(0)
            backlog.add(2, "b")
            assert await again == [(2, "b")]

    asyncio.run(act())


def test_others_have_their_turn_while_there_is_work() -> None:
    async def act() -> None:
        backlog: WorkQueue[int, int] = WorkQueue()
        turns = 0

        async def other() -> None:
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        for number in range(5):
            backlog.add(number, number)
        beside = asyncio.TaskGroup()
        async with beside:
            task = beside.create_task(other(), name="other")
            for _ in range(5):
                await backlog.take(1)
            task.cancel()
        assert turns >= 3

    asyncio.run(act())
