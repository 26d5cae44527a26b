"""The supervisor's line to the agent: the order of messages, and an agent that falls silent."""

from __future__ import annotations

import asyncio

from tests.unit.ztunnel.supervisor.agent_link_rig import (
    DEADLINE_S,
    FAR,
    HELLO,
    LEASE_S,
    POLICY,
    TIMING,
    Bench,
    run,
)


def test_a_change_of_policy_reaches_nobody_before_the_kernel_knows() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.workers.told.clear()
        publishing = bench.publish(POLICY)
        number = (await agent.hear_kind("generation"))["generation"]
        assert number == bench.link.generation
        assert bench.workers.told == []
        agent.say({"kind": "generation", "generation": number - 1})
        agent.say({"kind": "moved", "flows": [[1, 0, 0]]})
        await bench.until(lambda: any(line["kind"] == "moved" for _, line in bench.workers.direct))
        assert bench.workers.told == [], "that was the answer to another question"
        agent.say({"kind": "generation", "generation": number})
        await publishing
        assert bench.workers.told == ["shop/p", number], "the number follows what it is for"

    run(test)


def test_what_cannot_matter_waits_for_nobody() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.workers.told.clear()
        before = bench.link.generation
        await bench.publish(FAR)
        assert bench.workers.told == [FAR.name]
        assert bench.link.generation == before
        agent.leave()

    run(test)


def test_a_dead_agents_lease_is_waited_out() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.refuse = True
        agent.leave()
        await bench.until(lambda: not bench.link.status.connected)
        bench.workers.told.clear()
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await bench.publish(POLICY)
        assert loop.time() - started_s > LEASE_S / 2
        assert bench.workers.told[0] == "shop/p"
        started_s = loop.time()
        await bench.publish(POLICY)
        assert loop.time() - started_s < LEASE_S / 2, "it runs out once"

    run(test)


def test_a_silent_agent_is_left_and_its_lease_waited_out() -> None:
    async def test(bench: Bench) -> None:
        agent = await bench.greeted()
        bench.refuse = True
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        await bench.publish(POLICY)
        assert loop.time() - started_s > TIMING.ack_s + LEASE_S
        assert await agent.hear_kind("generation")
        assert await agent.reader.read() == b""

    run(test)


def test_an_agent_that_comes_back_answers_for_what_waits() -> None:
    async def test(bench: Bench) -> None:
        first = await bench.greeted(lease_s=DEADLINE_S)
        bench.workers.told.clear()
        publishing = bench.publish(POLICY)
        await first.hear_kind("generation")
        first.leave()
        second = await bench.agent()
        hello = await second.hear()
        second.say(HELLO)
        asked = await second.hear_kind("generation")
        assert hello["generation"] == asked["generation"] == bench.link.generation
        assert bench.workers.told == [], "the number must not overtake what is held back"
        second.say(asked)
        await publishing
        assert bench.workers.told[:2] == ["shop/p", bench.link.generation]

    run(test)


def test_each_connection_has_a_number_of_its_own() -> None:
    """Or a lease that starts anew would bring old verdicts back to life."""

    async def test(bench: Bench) -> None:
        first = await bench.greeted()
        before = bench.link.generation
        first.leave()
        second = await bench.agent()
        assert (await second.hear())["generation"] > before
        second.say(HELLO)
        await bench.until(lambda: bench.link.generation in bench.workers.told)

    run(test)


def test_nobody_waits_for_an_agent_that_never_came() -> None:
    async def test(bench: Bench) -> None:
        bench.refuse = True
        await bench.publish(POLICY)
        assert bench.workers.told[0] == "shop/p"

    run(test)


def test_agents_that_never_answer_hold_policy_back_for_a_bounded_time() -> None:
    async def test(bench: Bench) -> None:
        async def flap() -> None:
            while True:
                agent = await bench.agents.get()
                await agent.hear()
                agent.say(HELLO)

        flapping = bench.tasks.create_task(flap())
        await bench.until(lambda: bench.link.status.connected)
        async with asyncio.timeout(TIMING.stale_s_max + 1):
            await bench.publish(POLICY)
        assert "shop/p" in bench.workers.told
        flapping.cancel()

    run(test)


def test_the_end_of_patience_is_not_the_end_of_a_lease() -> None:
    lease_s = TIMING.stale_s_max + 0.2

    async def test(bench: Bench) -> None:
        await bench.greeted(lease_s)
        bench.refuse = True  # it is heard no more
        since_s = asyncio.get_running_loop().time()
        await bench.publish(POLICY)
        assert asyncio.get_running_loop().time() - since_s >= lease_s

    run(test)
