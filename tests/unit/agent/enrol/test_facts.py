"""News: everybody who waits is woken, and nobody for a pod that is not theirs."""

from __future__ import annotations

import asyncio

import pytest

from agent.datapath.errors import MapFull
from agent.enrol.facts import Facts, Pulse, Watches
from agent.enrol.plan import PodState
from tests.support.descriptors import no_descriptors
from tests.unit.agent.enrol.conftest import POD


def test_who_looks_after_taking_the_pulse_misses_nothing() -> None:
    async def scenario() -> None:
        pulse = Pulse()
        before = pulse.next()
        pulse.beat()
        async with asyncio.timeout(5):
            await before.wait()
        assert not pulse.next().is_set()

    asyncio.run(scenario())


def test_a_watch_is_for_one_pod() -> None:
    watches = Watches()
    mine, other = watches.next("a"), watches.next("b")
    assert watches.next("a") is mine
    watches.changed("a")
    assert (mine.is_set(), other.is_set()) == (True, False)
    assert watches.next("a") is not mine
    watches.changed("nobody")


def test_news_wake_whoever_waits_for_a_state(facts: Facts) -> None:
    facts.book.registered("uid", 8, POD.addresses, None)
    watch, pulse = facts.watches.next("uid"), facts.pulse.next()
    facts.news()
    assert watch.is_set()
    assert pulse.is_set()
    watch = facts.watches.next("uid")
    facts.news()  # the state is the same
    assert not watch.is_set()


def test_a_failure_is_counted_and_shown(facts: Facts) -> None:
    facts.book.registered("uid", 8, POD.addresses, True)
    facts.failed("uid", MapFull("pods"))
    facts.failed("uid", OSError(5, "broken"))
    assert facts.stats.failures == {"map_full": 1, "os": 1}
    assert facts.book.state("uid") == (PodState.FAILED, "os")


def test_the_same_failure_again_is_counted_and_not_logged(
    facts: Facts, caplog: pytest.LogCaptureFixture
) -> None:
    facts.book.registered("uid", 8, POD.addresses, True)
    for error in (MapFull("pods"), MapFull("pods"), OSError(5, "broken"), MapFull("pods")):
        facts.failed("uid", error)
    assert facts.stats.failures == {"map_full": 3, "os": 1}
    reasons = [each.fields["reason"] for each in caplog.records]  # type: ignore[attr-defined]
    assert reasons == ["map_full", "os", "map_full"]


def test_a_namespace_that_is_nowhere_is_gone(facts: Facts) -> None:
    facts.known.put(POD)
    facts.book.registered(POD.uid, POD.cookie, POD.addresses, True)
    facts.vanished()
    with no_descriptors():
        facts.vanished(POD)  # nobody could look
    assert facts.book.pods()[POD.uid].netns == POD.cookie
    facts.vanished(POD)
    assert facts.book.pods()[POD.uid].netns is None
