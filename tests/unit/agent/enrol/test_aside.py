"""Kernel objects that a thread makes: given to whoever waits, and closed if nobody does."""

from __future__ import annotations

import asyncio
import threading

import pytest

from agent.enrol.aside import made_aside


class Made:
    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def close(self) -> None:
        self.closed.set()


def test_it_is_made_in_another_thread() -> None:
    made: list[threading.Thread] = []

    def make() -> Made:
        made.append(threading.current_thread())
        return Made()

    async def scenario() -> None:
        assert not (await made_aside(make)).closed.is_set()

    asyncio.run(scenario())
    assert made != [threading.current_thread()]


def test_what_nobody_waits_for_any_more_is_closed() -> None:
    async def scenario() -> None:
        go_on, made = threading.Event(), Made()

        def make() -> Made:
            assert go_on.wait(5.0)
            return made

        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(made_aside(make))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.sleep(0)
            assert not made.closed.is_set()
            go_on.set()
            async with asyncio.timeout(5.0):
                await made.closed.wait()

    asyncio.run(scenario())


def test_a_refusal_reaches_the_caller() -> None:
    def make() -> Made:
        raise OSError("no")

    with pytest.raises(OSError, match="no"):
        asyncio.run(made_aside(make))
