"""Readers of the state learn whether the workers were sent all of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ztunnel.supervisor.passing import Passing

LONG_S, SHORT_S = 5.0, 0.001


def run(test: Callable[[Passing], Awaitable[None]]) -> None:
    async def whole() -> None:
        await test(Passing())

    asyncio.run(whole())


def test_nothing_is_under_way_at_first_nor_after_a_failure() -> None:
    async def test(subject: Passing) -> None:
        assert await subject.over(0)
        with pytest.raises(OSError), subject.under_way():
            raise OSError
        assert await subject.over(0)

    run(test)


def test_one_waits_for_what_is_under_way_and_no_longer_than_told() -> None:
    async def test(subject: Passing) -> None:
        async with asyncio.TaskGroup() as tasks:
            with subject.under_way():
                assert not await subject.over(SHORT_S)
                waiting = tasks.create_task(subject.over(LONG_S))
                await asyncio.sleep(0)
                assert not waiting.done()
        assert waiting.result()

    run(test)


def test_what_follows_at_once_is_waited_for_too() -> None:
    """The state has the second batch before whoever waits for the first one can look."""

    async def test(subject: Passing) -> None:
        sent: list[int] = []

        async def look() -> int:
            assert await subject.over(LONG_S)
            return len(sent)

        async with asyncio.TaskGroup() as tasks:
            with subject.under_way():
                looking = tasks.create_task(look())
                await asyncio.sleep(0)
            sent.append(1)
            with subject.under_way():
                await asyncio.sleep(0)
                await asyncio.sleep(0)
            sent.append(2)
        assert looking.result() == 2

    run(test)
