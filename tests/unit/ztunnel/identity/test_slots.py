"""Turns at the signer: bounded, urgent ones first, none lost."""

from __future__ import annotations

import asyncio

from ztunnel.identity.slots import Priority, PrioritySlots


async def settle() -> None:
    """Let everything that can run without time passing run."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_a_cancelled_waiter_does_not_take_a_slot_along() -> None:
    async def whole() -> None:
        slots = PrioritySlots(1)
        order: list[str] = []

        async def use(name: str, priority: Priority, hold: asyncio.Event) -> None:
            async with slots.hold(name, priority):
                order.append(name)
                await hold.wait()

        first, never = asyncio.Event(), asyncio.Event()
        never.set()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(use("first", Priority.PREFETCH, first))
            await settle()
            lost = tasks.create_task(use("lost", Priority.WAITING, never))
            tasks.create_task(use("renewal", Priority.RENEWAL, never))
            tasks.create_task(use("waiting", Priority.WAITING, never))
            await settle()
            first.set()
            lost.cancel()
            await settle()
        assert order == ["first", "waiting", "renewal"]

    asyncio.run(whole())
