"""Long work in steps: all of it is done, in order, and others have the loop in between."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

import pytest

from control.kit.slices import (
    PORTION,
    SLICE_S,
    SORTED,
    done,
    emptied,
    in_slices,
    made_in_slices,
    portions,
    sorted_steps,
)
from tests.support.clock import FakeClock


def test_portions_have_everything_in_order() -> None:
    found = list(portions(range(2 * PORTION + 1)))
    assert [len(each) for each in found] == [PORTION, PORTION, 1]
    assert [each for part in found for each in part] == list(range(2 * PORTION + 1))
    assert list(portions([])) == []


@pytest.mark.parametrize("make", [dict.fromkeys, set, list])
def test_a_container_is_emptied_a_portion_a_step(make: Any) -> None:
    found = make(range(2 * PORTION + 1))
    sizes = [len(found) for _ in emptied(found)]
    assert sizes == [PORTION + 1, 1, 0]


def test_names_are_sorted_a_part_a_step() -> None:
    names = [str(number) for number in range(3 * SORTED)]
    steps = sorted_steps(names)
    assert sum(1 for _ in sorted_steps(names)) == 3
    assert list(done(steps)) == sorted(names)


def counted(times: int, clock: FakeClock) -> Generator[None, None, str]:
    for _ in range(times):
        clock.pass_s(SLICE_S / 2)
        yield
    return "made"


def test_others_have_the_loop_after_each_slice() -> None:
    clock = FakeClock()
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def whole() -> str:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(others())
            await in_slices(counted(10, clock), clock)
            assert turns == 5
            result = await made_in_slices(counted(10, clock), clock)
            assert turns == 10
            running.cancel()
        return result

    assert asyncio.run(whole()) == "made"


def test_steps_that_are_done_at_once_have_their_result() -> None:
    assert done(counted(3, FakeClock())) == "made"
