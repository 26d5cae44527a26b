"""Policies of an API server that does not serve their kinds: not yet, or not any more."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest

from control.kube import reflection
from control.server.sources.snapshot import Snapshot
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import not_there
from tests.support.manifests import pod, policy
from tests.unit.control.server.sources.test_kubernetes import DEADLINE_S, put, reading


@pytest.fixture
def api() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop")
        yield server


POLICY_KINDS = ".*/(authorizationpolicies|peerauthentications)"


def test_policies_that_are_defined_and_not_served_yet_are_waited_for(api: KubeServer) -> None:
    api.install_istio_kinds()
    put(api, pod() + policy("{}"))
    starting = api.fail(POLICY_KINDS, not_there())

    async def main() -> None:
        async with reading(api) as bench, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(bench.first(), name="first")
            async with asyncio.timeout(DEADLINE_S):
                while starting.hits < 12:
                    await asyncio.wait((first,), timeout=0.02)
            assert not first.done()
            api.faults.active.remove(starting)
            found = await first
            assert len(found.objects.authorization_policies) == 1

    asyncio.run(main())


def test_something_that_knows_of_no_kind_takes_no_policy_away(api: KubeServer) -> None:
    """A load balancer that leads elsewhere for a while, and answers 404 to everything."""
    api.install_istio_kinds()
    put(api, pod() + policy("{}"))

    async def main() -> None:
        async with reading(api) as bench:
            await bench.first()
            elsewhere = api.fail(".*", not_there())
            api.drop_connections()
            found = await bench.until(lambda snapshot: len(snapshot.problems) == 8)
            assert elsewhere.hits > 20
            assert len(found.objects.authorization_policies) == 1

    asyncio.run(main())


def test_a_definition_that_comes_later_is_taken_up_and_one_that_goes_takes_its_policies(
    api: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reflection, "ABSENT_S", 0.02)
    put(api, pod())

    def have(count: int) -> Callable[[Snapshot], bool]:
        return lambda snapshot: len(snapshot.objects.authorization_policies) == count

    async def main() -> None:
        async with reading(api) as bench:
            found = await bench.first()
            assert have(0)(found)
            api.install_istio_kinds()
            put(api, policy("{}"))
            await bench.until(have(1))
            # While nobody listens, so that nobody hears of each object's end.
            with api.away():
                api.remove("security.istio.io/v1", "AuthorizationPolicy", "p", "shop")
                for each in ("authorizationpolicies", "peerauthentications"):
                    name = f"{each}.security.istio.io"
                    api.remove("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
            found = await bench.until(have(0))
            assert found.problems == ()

    asyncio.run(main())
