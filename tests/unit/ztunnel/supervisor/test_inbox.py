"""The inbox: in order, but for policies that must not wait; bounded; and an end with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import pytest

from control.wire import discovery_pb2 as pb
from control.wire.delta import Update
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ztunnel.supervisor.inbox import WAITING_MAX, Inbox


def update(type_url: str, nonce: str, removed: tuple[str, ...] = ()) -> Update:
    return Update(
        pb.DeltaDiscoveryResponse(type_url=type_url, nonce=nonce, removed_resources=removed), 0
    )


def addresses(nonce: str) -> Update:
    return update(ADDRESS_TYPE, nonce)


def policies(nonce: str, *removed: str) -> Update:
    return update(AUTHORIZATION_TYPE, nonce, removed)


def run(test: Coroutine[Any, Any, None]) -> None:
    async def within() -> None:
        async with asyncio.timeout(5):
            await test

    asyncio.run(within())


def test_the_order_is_that_of_arrival() -> None:
    async def test() -> None:
        inbox = Inbox()
        for each in (addresses("1"), policies("2"), addresses("3")):
            await inbox.put(each)
        assert [(await inbox.next()).nonce for _ in range(3)] == ["1", "2", "3"]

    run(test())


def test_policies_may_overtake_addresses() -> None:
    async def test() -> None:
        inbox = Inbox()
        for each in (addresses("1"), policies("2"), policies("3")):
            await inbox.put(each)
        assert [each and each.nonce for each in (inbox.urgent(), inbox.urgent())] == ["2", "3"]
        assert inbox.urgent() is None
        assert (await inbox.next()).nonce == "1"

    run(test())


def test_a_removal_waits_and_no_policy_overtakes_it() -> None:
    async def test() -> None:
        inbox = Inbox()
        for each in (addresses("1"), policies("2", "shop/p"), policies("3")):
            await inbox.put(each)
        assert inbox.urgent() is None
        assert (await inbox.next()).nonce == "1"
        assert (await inbox.next()).nonce == "2"
        urgent = inbox.urgent()
        assert urgent is not None
        assert urgent.nonce == "3"

    run(test())


def test_beyond_its_bound_the_reader_waits() -> None:
    async def test() -> None:
        inbox = Inbox()
        for number in range(WAITING_MAX):
            await inbox.put(addresses(str(number)))
        async with asyncio.TaskGroup() as tasks:
            late = tasks.create_task(inbox.put(addresses("late")))
            await asyncio.sleep(0)
            assert not late.done()
            assert (await inbox.next()).nonce == "0"
        assert [(await inbox.next()).nonce for _ in range(WAITING_MAX)][-1] == "late"

    run(test())


def test_what_came_before_the_end_is_still_there() -> None:
    async def test() -> None:
        inbox = Inbox()
        await inbox.put(addresses("1"))
        await inbox.end(ConnectionError("gone"))
        assert (await inbox.next()).nonce == "1"
        for _ in range(2):
            with pytest.raises(ConnectionError, match="gone"):
                await inbox.next()

    run(test())


def test_an_end_wakes_the_one_who_waits() -> None:
    async def test() -> None:
        inbox = Inbox()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(fails(inbox))
            await asyncio.sleep(0)
            await inbox.end(ConnectionError("gone"))
        assert waiting.result() == "gone"

    async def fails(inbox: Inbox) -> str:
        with pytest.raises(ConnectionError) as caught:
            await inbox.next()
        return str(caught.value)

    run(test())
