"""The election against an API server: one of several leads, and hands over."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import pytest

from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.trust import Trust
from control.server.leader.election import NAME, Election
from control.server.leader.lease import DURATION_S, RENEW_S
from tests.support.clock import FakeClock
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal, too_many

NAMESPACE = "tulle-system"


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace(NAMESPACE)
        yield server


@asynccontextmanager
async def replicas(kube: KubeServer, clock: FakeClock) -> AsyncIterator[tuple[Election, Election]]:
    async with KubeClient(ClusterAccess(kube.url, Trust())) as client, asyncio.timeout(20):
        yield (
            Election(client, NAMESPACE, "a", clock),
            Election(client, NAMESPACE, "b", clock),
        )


def spec(kube: KubeServer) -> dict[str, object]:
    found = kube.get("coordination.k8s.io/v1", "Lease", NAME, NAMESPACE)
    assert found is not None
    made: dict[str, object] = found["spec"]
    return made


def test_the_first_leads_and_the_second_knows_it(kube: KubeServer) -> None:
    async def whole() -> None:
        clock = FakeClock()
        async with replicas(kube, clock) as (a, b):
            for each in (a, b, a, b):
                await each.step()
            assert (a.holds(), b.holds()) == (True, False)
            assert b.leader == "a"

    asyncio.run(whole())
    assert spec(kube)["holderIdentity"] == "a"
    assert spec(kube)["leaseTransitions"] == 0


def test_both_at_once_make_one_leader(kube: KubeServer) -> None:
    async def whole() -> list[bool]:
        async with replicas(kube, FakeClock()) as both:
            kube.fail("GET .*leases.*", refusal(404, "NotFound", "no"), times=2)
            async with asyncio.TaskGroup() as tasks:
                for each in both:
                    tasks.create_task(each.step())
            return [each.holds() for each in both]

    assert sorted(asyncio.run(whole())) == [False, True]


def test_a_stopped_leader_hands_over_at_once(kube: KubeServer) -> None:
    async def whole() -> None:
        async with replicas(kube, FakeClock()) as (a, b):
            await a.step()
            await b.step()
            await a.release()
            assert not a.holds()
            await b.step()
            assert b.holds()
            await a.release()  # it is not its own any more

    asyncio.run(whole())
    assert spec(kube)["holderIdentity"] == "b"
    assert spec(kube)["leaseTransitions"] == 1


def test_a_dead_leader_is_replaced_after_the_leases_duration(kube: KubeServer) -> None:
    async def whole() -> None:
        clock = FakeClock()
        async with replicas(kube, clock) as (a, b):
            await a.step()
            await b.step()
            clock.pass_s(DURATION_S - 1)
            await b.step()
            assert not b.holds()
            assert not a.holds(), "it stopped to write before"
            clock.pass_s(1)
            await b.step()
            assert b.holds()
            await a.step()
            assert not a.holds()

    asyncio.run(whole())


def test_a_renewal_that_nobody_changed_anything_by_still_differs(kube: KubeServer) -> None:
    async def whole() -> None:
        async with replicas(kube, FakeClock()) as (a, _):
            versions = set()
            for _ in range(3):
                await a.step()
                versions.add(kube.store.version)
            assert len(versions) == 3

    asyncio.run(whole())


@pytest.mark.parametrize("trouble", [too_many(1), refusal(403, "Forbidden", "no"), None])
def test_without_the_api_server_a_leader_writes_no_more_after_a_while(
    kube: KubeServer, trouble: object
) -> None:
    async def whole() -> None:
        clock = FakeClock()
        async with replicas(kube, clock) as (a, _):
            await a.step()
            fault = kube.fail(".*leases.*", trouble, cut=trouble is None)
            await a.step()
            assert a.holds(), "one failure is not the end"
            clock.pass_s(RENEW_S)
            await a.step()
            assert not a.holds()
            fault.times = 0
            await a.step()
            assert a.holds()

    asyncio.run(whole())
