"""Renewal over days in virtual time: lives, outages, and clocks that jump."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from cryptography import x509
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.identity import SpiffeId
from tests.support.clock import FakeClock
from tests.support.engine.meshes import spiffe
from tests.support.virtual_time import TwoClocks, run_virtual
from tests.unit.ztunnel.identity.certs_rig import CA, NOW, WEB
from ztunnel.identity.certs import CLOCK_LOOK_S, RECOVERY_S, WANTED_EVERY_S, Certificates
from ztunnel.identity.csr import Issued
from ztunnel.identity.renewal import (
    JUMP_S,
    RENEWAL_S_MIN,
    ClockWatch,
    is_valid,
    renewal_pause_s,
)
from ztunnel.identity.signer import SigningFailed

BACKDATED_S = 120  # as our own control plane does
HOUR_S = 3600.0
DAY_S = 24 * HOUR_S


def issued(life_s: float, backdated_s: float = BACKDATED_S) -> Issued:
    start = NOW - timedelta(seconds=backdated_s)
    return Issued(WEB, "", (), "", 1, start, NOW + timedelta(seconds=life_s), NOW)


@dataclass
class Authority:
    """Signs by its own wall clock while it is up."""

    clock: TwoClocks
    ttl_s: float
    up: bool = True
    asked: list[float] = field(default_factory=list)
    reconnects: int = 0

    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        self.asked.append(self.clock.monotonic_s())
        await asyncio.sleep(0.01)
        if not self.up:
            raise SigningFailed("UNAVAILABLE")
        key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
        start = self.clock.now() - timedelta(seconds=BACKDATED_S)
        days = (self.ttl_s + BACKDATED_S) / DAY_S
        return CA.chain(key, str(identity), start=start, days=days)

    def reconnect(self) -> None:
        self.reconnects += 1

    async def close(self) -> None:
        pass


@dataclass
class Published:
    """Leaves that a worker holds."""

    held: dict[SpiffeId, Issued] = field(default_factory=dict)
    failures: int = 0

    def publish_certificate(self, each: Issued) -> None:
        self.held[each.identity] = each

    def publish_failure(self, identity: SpiffeId, reason: str) -> None:
        self.failures += 1

    def publish_forgotten(self, identity: SpiffeId) -> None:
        self.held.pop(identity, None)


class Bench:
    def __init__(self, ttl_s: float) -> None:
        self.clock = TwoClocks()
        self.authority = Authority(self.clock, ttl_s)
        self.workers = Published()
        self.recovered = 0
        self.kept = Certificates(
            self.authority,
            self.clock,
            self.workers,
            ttl_s=ttl_s,
            rng=random.Random(1),
            on_recovered=self._note_recovered,
        )

    def _note_recovered(self) -> None:
        self.recovered += 1

    def valid(self, identity: SpiffeId = WEB) -> bool:
        held = self.workers.held.get(identity)
        return held is not None and is_valid(held, self.clock.now())

    async def until_valid_s(self, identity: SpiffeId = WEB) -> float:
        start_s = self.clock.monotonic_s()
        while not self.valid(identity):
            assert self.clock.monotonic_s() - start_s < 200
            await asyncio.sleep(0.1)
        return self.clock.monotonic_s() - start_s


def with_bench(ttl_s: float, test: Callable[[Bench], Coroutine[Any, Any, None]]) -> None:
    async def whole() -> None:
        bench = Bench(ttl_s)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.kept.run())
            await asyncio.sleep(0)
            await test(bench)
            running.cancel()

    run_virtual(whole())


@given(
    life_s=st.floats(1, 90 * DAY_S),
    backdated_s=st.floats(0, DAY_S),
    seed=st.integers(0, 1000),
)
def test_the_pause_is_a_share_of_the_life_that_is_left(
    life_s: float, backdated_s: float, seed: int
) -> None:
    pause_s = renewal_pause_s(issued(life_s, backdated_s), NOW, random.Random(seed))
    assert pause_s >= RENEWAL_S_MIN
    if life_s > 2.3 * RENEWAL_S_MIN:
        assert 0.44 * life_s < pause_s <= 0.51 * life_s


@pytest.mark.parametrize("ttl_s", [10, 20, 60, 120, 300, HOUR_S, DAY_S])
def test_a_leaf_is_renewed_a_few_times_in_its_life(ttl_s: float) -> None:
    async def test(bench: Bench) -> None:
        bench.kept.hold(WEB, "pod")
        lives = 20 if ttl_s < HOUR_S else 4
        for _ in range(lives):
            await asyncio.sleep(ttl_s)
            assert bench.valid()
        assert lives < len(bench.authority.asked) < 3 * lives

    with_bench(ttl_s, test)


async def _wanted(bench: Bench) -> None:
    bench.kept.need(WEB, waiting=True)


async def _reachable(bench: Bench) -> None:
    bench.kept.reachable()


async def _another_recovers(bench: Bench) -> None:
    bench.kept.need(spiffe("other"), waiting=True)


WAKERS: dict[str, Callable[[Bench], Coroutine[Any, Any, None]]] = {
    "a connection waits": _wanted,
    "the stream is back": _reachable,
    "another identity is signed": _another_recovers,
}


@pytest.mark.parametrize("waker", WAKERS)
@pytest.mark.parametrize("outage_s", [30, 300, 2 * HOUR_S])
@pytest.mark.parametrize("ttl_s", [60, HOUR_S])
def test_after_an_outage_certificates_are_back_in_seconds(
    waker: str, outage_s: float, ttl_s: float
) -> None:
    async def test(bench: Bench) -> None:
        bench.kept.hold(WEB, "pod")
        bench.kept.hold(spiffe("other"), "pod")
        await asyncio.sleep(1)
        bench.authority.up = False
        await asyncio.sleep(outage_s)
        bench.authority.up = True
        assert bench.recovered == 0
        waited = not bench.valid()
        if waited:
            await WAKERS[waker](bench)
        assert await bench.until_valid_s() < RECOVERY_S + 1
        assert bool(bench.recovered) is waited, "others hear that the control plane is back"

    with_bench(ttl_s, test)


def test_connections_that_wait_in_an_outage_do_not_flood_the_signer() -> None:
    async def test(bench: Bench) -> None:
        bench.authority.up = False
        bench.kept.hold(WEB, "pod")
        await asyncio.sleep(1000)
        before = len(bench.authority.asked)
        for _ in range(1000):
            bench.kept.need(WEB, waiting=True)
            await asyncio.sleep(0.01)
        assert len(bench.authority.asked) - before < 10 / WANTED_EVERY_S + 3
        assert bench.workers.failures > 900, "nobody is left without an answer"

    with_bench(HOUR_S, test)


@pytest.mark.parametrize("ttl_s", [60, 6 * HOUR_S])
@pytest.mark.parametrize("age", [0.1, 0.4])
@pytest.mark.parametrize("jump_s", [-30 * DAY_S, -10 * HOUR_S, -300, 300, 10 * HOUR_S, 30 * DAY_S])
def test_whatever_a_clock_does_a_valid_leaf_is_there_soon(
    ttl_s: float, age: float, jump_s: float
) -> None:
    """Both clocks of a host that slept differ as after a step forward."""

    async def test(bench: Bench) -> None:
        bench.kept.hold(WEB, "pod")
        await asyncio.sleep(age * ttl_s)
        bench.clock.set_by_s += jump_s
        await asyncio.sleep(CLOCK_LOOK_S + RECOVERY_S + 1)
        assert bench.valid()
        asked = len(bench.authority.asked)
        await asyncio.sleep(2 * ttl_s)
        assert bench.valid()
        assert len(bench.authority.asked) - asked < 8, "and no storm follows"

    with_bench(ttl_s, test)


@pytest.mark.parametrize("jump_s", [-JUMP_S, JUMP_S, 12 * HOUR_S])
def test_a_jump_is_told_once_and_drift_is_none(jump_s: float) -> None:
    async def whole() -> None:
        clock = TwoClocks()
        watch = ClockWatch(clock)
        assert watch.jump_s() == 0
        clock.set_by_s += jump_s
        assert watch.jump_s() == pytest.approx(jump_s)
        assert watch.jump_s() == 0
        clock.set_by_s += JUMP_S / 2
        assert watch.jump_s() == 0

    run_virtual(whole())


@settings(max_examples=50)
@given(now_s=st.floats(-500, 500))
def test_validity_has_two_ends(now_s: float) -> None:
    clock = FakeClock(NOW)
    clock.pass_s(now_s)
    assert is_valid(issued(100), clock.now()) is (-BACKDATED_S <= now_s < 100)
