"""Certificates kept, renewed and forgotten for the pods of a node."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from cryptography import x509

from control.model.identity import SpiffeId
from tests.support.engine.meshes import spiffe
from tests.unit.ztunnel.identity.certs_rig import API, CA, NOW, WEB
from ztunnel.identity.certs import IN_FLIGHT_MAX, Certificates
from ztunnel.identity.csr import Issued
from ztunnel.identity.signer import SigningFailed


class Clock:
    """Wall time that moves only when a test moves it."""

    def __init__(self) -> None:
        self.moment = NOW

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return (self.moment - NOW).total_seconds()


@dataclass
class Signer:
    """Signer that answers when the test says so."""

    asked: list[SpiffeId] = field(default_factory=list)
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    failing: bool = False
    under_way: int = 0
    most: int = 0

    async def sign(self, identity: SpiffeId, csr_pem: str, ttl_s: float) -> list[str]:
        self.asked.append(identity)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            await self.gate.wait()
        finally:
            self.under_way -= 1
        if self.failing:
            raise SigningFailed("no")
        key = x509.load_pem_x509_csr(csr_pem.encode()).public_key()
        return CA.chain(key, str(identity), days=ttl_s / 86400)

    def reconnect(self) -> None:
        pass

    async def close(self) -> None:
        pass


@dataclass
class Workers:
    """Everything that was published, by kind and in order."""

    issued: list[Issued] = field(default_factory=list)
    failed: list[tuple[SpiffeId, str]] = field(default_factory=list)
    forgotten: list[SpiffeId] = field(default_factory=list)
    held: set[SpiffeId] = field(default_factory=set)  # identities a worker has a key of now

    def publish_certificate(self, issued: Issued) -> None:
        self.issued.append(issued)
        self.held.add(issued.identity)

    def publish_failure(self, identity: SpiffeId, reason: str) -> None:
        self.failed.append((identity, reason))

    def publish_forgotten(self, identity: SpiffeId) -> None:
        self.forgotten.append(identity)
        self.held.discard(identity)


@dataclass
class Bench:
    signer: Signer
    clock: Clock
    kept: Certificates
    workers: Workers

    @property
    def issued(self) -> list[Issued]:
        return self.workers.issued

    @property
    def failed(self) -> list[tuple[SpiffeId, str]]:
        return self.workers.failed


PODS_IN_A_DAY = 2000


async def settle() -> None:
    """Let everything that can run without time passing run."""
    for _ in range(20):
        await asyncio.sleep(0)


def with_keeper(
    test: Callable[[Bench], Coroutine[Any, Any, None]], *, ttl_s: float = 86400
) -> None:
    async def whole() -> None:
        signer, clock, workers = Signer(), Clock(), Workers()
        kept = Certificates(signer, clock, workers, ttl_s=ttl_s, rng=random.Random(1))
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(kept.run())
            await settle()
            await test(Bench(signer, clock, kept, workers))
            running.cancel()

    asyncio.run(whole())


def test_a_pods_identity_is_fetched_before_anybody_asks() -> None:
    async def test(bench: Bench) -> None:
        bench.signer.gate.set()
        bench.kept.hold(WEB, "pod-1")
        bench.kept.hold(WEB, "pod-2")
        await settle()
        assert bench.signer.asked == [WEB]
        assert [each.identity for each in bench.issued] == [WEB]
        bench.kept.need(WEB, waiting=True)  # a new worker asks: the answer is there
        assert len(bench.issued) == 2

    with_keeper(test)


def test_the_last_pod_takes_its_identity_along() -> None:
    async def test(bench: Bench) -> None:
        bench.kept.hold(WEB, "pod-1")
        bench.kept.hold(WEB, "pod-2")
        await settle()
        bench.kept.release(WEB, "pod-1")
        assert len(bench.kept.all()) == 1
        bench.kept.release(WEB, "pod-2")
        await settle()
        assert bench.kept.all() == []
        assert bench.signer.under_way == 0
        bench.kept.need(WEB, waiting=True)
        assert bench.failed == [(WEB, "not_on_this_node")]
        assert bench.workers.forgotten == [WEB]

    with_keeper(test)


def test_a_certificate_that_comes_too_late_reaches_nobody() -> None:
    async def test(bench: Bench) -> None:
        bench.kept.hold(WEB, "pod")
        await settle()
        bench.signer.gate.set()  # the signer answers in the very turn in which the pod leaves
        bench.kept.release(WEB, "pod")
        await settle()
        assert bench.issued == []
        assert bench.workers.held == set()

    with_keeper(test)


def test_an_identity_that_comes_back_gets_a_new_key() -> None:
    async def test(bench: Bench) -> None:
        bench.signer.gate.set()
        for pod in ("pod-1", "pod-2"):
            bench.kept.hold(WEB, pod)
            await settle()
            assert bench.workers.held == {WEB}
            bench.kept.release(WEB, pod)
            assert bench.workers.held == set()
        first, second = bench.issued
        assert first.key_pem != second.key_pem

    with_keeper(test)


def test_a_replaced_pod_keeps_its_certificate() -> None:
    async def test(bench: Bench) -> None:
        bench.signer.gate.set()
        bench.kept.hold(WEB, "pod@1")
        await settle()
        bench.kept.hold(WEB, "pod@2")
        bench.kept.release(WEB, "pod@1")
        await settle()
        assert bench.workers.forgotten == []
        assert len(bench.issued) == 1

    with_keeper(test)


def test_pods_that_come_and_go_leave_no_keys_behind() -> None:
    async def test(bench: Bench) -> None:
        bench.signer.gate.set()
        most = 0
        for number in range(PODS_IN_A_DAY):
            identity = spiffe(f"job-{number}")
            bench.kept.hold(identity, "pod")
            if number % 10 == 9:
                await settle()
            most = max(most, len(bench.workers.held))
            bench.kept.release(identity, "pod")
        await settle()
        assert most <= 1
        assert bench.workers.held == set()
        assert bench.kept.all() == []

    with_keeper(test)


def test_a_failure_is_told_and_a_valid_certificate_outlives_it() -> None:
    async def test(bench: Bench) -> None:
        bench.signer.gate.set()
        bench.signer.failing = True
        bench.kept.hold(WEB, "pod")
        await settle()
        assert bench.failed == [(WEB, "signing_failed")]
        bench.kept.need(WEB, waiting=True)
        assert bench.failed[1:] == [(WEB, "signing_failed")]
        bench.signer.failing = False
        assert bench.kept.rotate(WEB) == [WEB]
        await settle()
        assert len(bench.issued) == 1
        bench.signer.failing = True
        assert bench.kept.rotate() == [WEB]
        await settle()
        assert len(bench.failed) == 2  # the old one is still good: nobody has to know
        bench.kept.need(WEB, waiting=True)
        assert bench.issued[-1] == bench.issued[0]
        bench.clock.moment += timedelta(days=2)
        bench.kept.need(WEB, waiting=True)
        assert len(bench.failed) == 2, "it is asked for once more"
        await settle()
        assert len(bench.failed) == 3
        bench.kept.need(WEB, waiting=True)
        assert len(bench.failed) == 4, "the answer is younger than WANTED_EVERY_S"

    with_keeper(test)


def test_rotation_makes_a_new_key() -> None:
    async def test(bench: Bench) -> None:
        bench.signer.gate.set()
        bench.kept.hold(WEB, "pod")
        await settle()
        bench.kept.rotate()
        await settle()
        one, two = bench.issued
        assert one.key_pem != two.key_pem
        assert one.serial != two.serial
        assert bench.kept.rotate(API) == []

    with_keeper(test)


def test_only_so_many_requests_and_the_waiting_one_comes_first() -> None:
    async def test(bench: Bench) -> None:
        identities = [spiffe(f"sa-{number:02}") for number in range(IN_FLIGHT_MAX + 5)]
        for each in identities:
            bench.kept.hold(each, "pod")
        await settle()
        assert len(bench.signer.asked) == IN_FLIGHT_MAX
        bench.kept.need(identities[-1], waiting=True)
        bench.signer.gate.set()
        await settle()
        assert bench.signer.most == IN_FLIGHT_MAX
        assert bench.signer.asked[IN_FLIGHT_MAX] == identities[-1]
        assert len(bench.issued) == len(identities)

    with_keeper(test)
