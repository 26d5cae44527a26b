"""Tasks that wait for a share: turns, and what a cancelled one leaves."""

from __future__ import annotations

import asyncio

from control.server.callers.budget import Bound, node_tenant
from control.server.callers.turns import Turns

HOG, HONEST = node_tenant("hog"), node_tenant("honest")


def test_an_honest_task_is_next_however_many_wait() -> None:
    order: list[str] = []

    async def whole() -> None:
        turns = Turns(Bound(None, each=1, total=1))

        async def work(tenant_name: str) -> None:
            async with turns.turn(node_tenant(tenant_name)):
                order.append(tenant_name)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for _ in range(20):
                tasks.create_task(work("hog"))
            await asyncio.sleep(0)
            tasks.create_task(work("honest"))
        assert turns.shares.total == 0

    asyncio.run(whole())
    assert order.index("honest") <= 4, "those that went before it came"
    assert len(order) == 21


def test_a_cancelled_task_holds_nothing_and_waits_no_longer() -> None:
    async def whole() -> None:
        turns = Turns(Bound(None, each=1, total=1))

        async def wait() -> None:
            async with turns.turn(HOG):
                await asyncio.Event().wait()

        async with asyncio.TaskGroup() as tasks:
            running = [tasks.create_task(wait()) for _ in range(3)]
            await asyncio.sleep(0)
            running[1].cancel()  # waits
            running[0].cancel()  # holds
            await asyncio.sleep(0.01)
            assert turns.shares.total == 1
            running[2].cancel()
        async with turns.turn(HONEST):
            assert turns.shares.total == 1
        assert turns.shares.total == 0

    asyncio.run(whole())
