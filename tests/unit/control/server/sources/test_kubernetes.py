"""The API server as a source, against the small one; and the contract that both sources keep."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from control.kit.clock import SystemClock
from control.kit.errors import ConfigError
from control.kube.access import ClusterAccess
from control.kube.client import KubeClient
from control.kube.trust import Trust
from control.server.compile.mesh import compile_mesh
from control.server.compile.settings import Settings
from control.server.sources.directory import DirectorySource
from control.server.sources.kubernetes import HOLD_S, SETTLE_S, Hold, KubernetesSource
from control.server.sources.objects import Objects
from control.server.sources.snapshot import Snapshot
from tests.support.clock import FakeClock
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal
from tests.support.manifests import pod, policy

DEADLINE_S = 20.0
CLUSTER = Path(__file__).parent / "cluster.yaml"
FORBIDDEN = refusal(403, "Forbidden", "it is forbidden")


@pytest.fixture
def api() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop")
        yield server


def put(api: KubeServer, text: str) -> None:
    for each in yaml.safe_load_all(text):
        if each is not None:
            api.put(each)


class Bench:
    def __init__(self, snapshots: AsyncIterator[Snapshot]) -> None:
        self._snapshots = snapshots
        self.last: Snapshot | None = None
        self.count = 0

    async def until(self, holds: Callable[[Snapshot], bool]) -> Snapshot:
        async with asyncio.timeout(DEADLINE_S):
            while self.last is None or not holds(self.last):
                self.last = await anext(self._snapshots)
                self.count += 1
            return self.last

    async def first(self) -> Snapshot:
        return await self.until(lambda snapshot: True)


@asynccontextmanager
async def reading(api: KubeServer) -> AsyncIterator[Bench]:
    access = ClusterAccess(api.url, Trust(), name="fake")
    async with KubeClient(access) as client:
        source = KubernetesSource(client, SystemClock(), (0.02, 0.1))
        assert source.name == f"{api.url} (fake)"
        async with source.opened() as snapshots:
            yield Bench(snapshots)


def without_places(found: Objects) -> Objects:
    """The objects, wherever they were read."""
    return Objects(
        **{
            kind.name: tuple(
                replace(each, meta=replace(each.meta, file="", line=0))
                for each in getattr(found, kind.name)
            )
            for kind in fields(found)
        }
    )


def exported(api: KubeServer) -> str:
    """As `kubectl get -o yaml` writes it."""
    with api.lock:
        return json.dumps({"kind": "List", "items": list(api.store.objects.values())}, indent=1)


def told(snapshot: Snapshot) -> list[tuple[str, str, str]]:
    return sorted((each.object, each.reason, each.message) for each in snapshot.problems)


@pytest.mark.parametrize("has_watch_lists", [True, False])
def test_both_sources_read_the_same_manifests_as_equal_objects(
    api: KubeServer, tmp_path: Path, has_watch_lists: bool
) -> None:
    api.api.has_watch_lists = has_watch_lists
    api.install_istio_kinds()
    api.install_gateway_kinds()
    api.namespace("istio-system")
    put(api, CLUSTER.read_text())

    async def main() -> Snapshot:
        async with reading(api) as bench:
            return await bench.first()

    ours = asyncio.run(main())
    (tmp_path / "all.json").write_text(exported(api))
    theirs = DirectorySource(tmp_path, SystemClock()).read()
    assert without_places(ours.objects) == without_places(theirs.objects)
    assert told(ours) == told(theirs)
    assert {each.object.split(" ")[0] for each in ours.problems} == {
        "Pod",
        "Service",
        "EndpointSlice",
        "AuthorizationPolicy",
        "PeerAuthentication",
    }
    assert all(count > 0 for count in ours.objects.counts().values())
    assert sum(each.broken != "" for each in ours.objects.authorization_policies) == 2
    assert any(each.broken for each in ours.objects.peer_authentications)
    settings = Settings()
    mine, other = (compile_mesh(each.objects, settings, frozenset()) for each in (ours, theirs))
    for field in ("workloads", "services", "policies", "pods", "identities"):
        assert getattr(mine, field) == getattr(other, field)


@pytest.mark.parametrize(
    "plural", ["namespaces", "pods", "services", "endpointslices", "authorizationpolicies"]
)
def test_nothing_is_given_out_before_every_kind_was_read(api: KubeServer, plural: str) -> None:
    api.install_istio_kinds()
    put(api, pod() + policy("{}"))
    fault = api.fail(f".*/{plural}", FORBIDDEN)

    async def main() -> None:
        async with reading(api) as bench, asyncio.TaskGroup() as tasks:
            first = tasks.create_task(bench.first(), name="first")
            async with asyncio.timeout(DEADLINE_S):
                while fault.hits < 3:
                    await asyncio.wait((first,), timeout=0.02)
            assert not first.done()
            api.faults.active.remove(fault)
            found = await first
            assert len(found.objects.pods) == len(found.objects.authorization_policies) == 1
            assert found.problems == ()

    asyncio.run(main())


@pytest.mark.parametrize("plural", ["nodes", "serviceaccounts"])
def test_a_kind_that_the_mesh_can_do_without_is_a_problem_only(
    api: KubeServer, plural: str
) -> None:
    put(api, pod())
    api.fail(f".*/{plural}", FORBIDDEN)

    async def main() -> None:
        async with reading(api) as bench:
            found = await bench.until(lambda snapshot: bool(snapshot.problems))
            assert len(found.objects.pods) == 1
            (problem,) = found.problems
            assert (problem.file, problem.reason) == ("kubernetes", "unreadable")
            assert "403 Forbidden: it is forbidden; it counts as empty" in problem.message

    asyncio.run(main())


def test_a_kind_that_is_refused_later_keeps_its_objects_and_says_so(api: KubeServer) -> None:
    api.install_istio_kinds()
    put(api, policy("{}"))

    async def main() -> None:
        async with reading(api) as bench:
            await bench.first()
            fault = api.fail(".*/authorizationpolicies", FORBIDDEN)
            api.restart()
            put(api, pod())
            found = await bench.until(lambda snapshot: bool(snapshot.problems))
            assert len(found.objects.authorization_policies) == 1
            assert "what was known stays in force" in found.problems[0].message
            await bench.until(lambda snapshot: len(snapshot.objects.pods) == 1)
            api.faults.active.remove(fault)
            put(api, policy("{}", name="q"))
            await bench.until(
                lambda snapshot: (
                    len(snapshot.objects.authorization_policies) == 2 and not snapshot.problems
                )
            )

    asyncio.run(main())


def test_policies_of_an_older_version_and_of_none_are_no_trouble(api: KubeServer) -> None:
    older = api.fail(
        ".*/v1/(authorizationpolicies|peerauthentications)", refusal(404, "NotFound", "x")
    )
    api.install_istio_kinds()
    put(api, policy("{}"))

    async def main() -> None:
        async with reading(api) as bench:
            found = await bench.first()
            assert len(found.objects.authorization_policies) == 1
            assert found.problems == ()

    asyncio.run(main())
    assert older.hits == 2
    with serving() as bare:
        bare.namespace("shop")
        put(bare, pod())

        async def without() -> None:
            async with reading(bare) as bench:
                found = await bench.first()
                assert len(found.objects.pods) == 1
                assert found.problems == ()

        asyncio.run(without())


def test_an_api_server_that_is_away_changes_nothing_and_is_caught_up_with(api: KubeServer) -> None:
    put(api, pod() + pod("b", address="10.1.0.2"))

    async def main() -> None:
        async with reading(api) as bench:
            before = await bench.first()
            with api.away():
                api.remove("v1", "Pod", "b", "shop")
                put(api, pod("c", address="10.1.0.3"))
                api.compact()
                found = await bench.until(lambda snapshot: len(snapshot.problems) == 6)
                assert found.objects.pods is before.objects.pods
                assert "cannot be reached" in found.problems[0].message
            found = await bench.until(
                lambda snapshot: (
                    not snapshot.problems
                    and [each.meta.name for each in snapshot.objects.pods] == ["c", "web"]
                )
            )
            assert found.objects.pods[1] is before.objects.pods[1], "the same object, not its equal"
            assert found.objects.namespaces is before.objects.namespaces

    asyncio.run(main())


def test_after_an_outage_no_pod_comes_before_its_policy(api: KubeServer) -> None:
    api.install_istio_kinds()

    async def main() -> None:
        async with reading(api) as bench:
            await bench.first()
            with api.away():
                await bench.until(lambda snapshot: len(snapshot.problems) == 8)
                put(api, pod() + policy("{}"))
                late = api.fail("WATCH .*/authorizationpolicies", cut=True, times=3)
            found = await bench.until(lambda snapshot: len(snapshot.objects.pods) == 1)
            assert late.hits == 3
            assert len(found.objects.authorization_policies) == 1

    asyncio.run(main())


def test_news_waits_for_a_kind_that_is_behind_but_not_for_ever() -> None:
    clock = FakeClock()
    hold = Hold(clock)
    assert not hold.back(False)
    assert hold.back(True)
    clock.pass_s(HOLD_S + 1)
    assert not hold.back(True), "one kind alone is in trouble for long"


def test_after_a_long_outage_news_waits_from_the_first_answer_until_all_was_told() -> None:
    clock = FakeClock()
    hold = Hold(clock)
    hold.back(True)
    clock.pass_s(3600)
    hold.answered()
    assert hold.back(True)
    clock.pass_s(HOLD_S - 1)
    hold.answered()
    assert hold.back(False), "all are back, and what they missed is on its way"
    clock.pass_s(SETTLE_S)
    assert not hold.back(False)
    hold.answered()
    clock.pass_s(HOLD_S + 1)
    hold.answered()
    assert not hold.back(True), "a server that comes and goes holds nothing up for ever"


def test_a_change_that_means_nothing_to_the_mesh_gives_no_snapshot(api: KubeServer) -> None:
    put(api, pod())

    async def main() -> None:
        async with reading(api) as bench:
            await bench.first()
            for number in range(5):
                value = yaml.safe_load(pod())
                value["status"]["message"] = f"probe {number}"
                api.put(value)
            put(api, pod("b", address="10.1.0.2"))
            await bench.until(lambda snapshot: len(snapshot.objects.pods) == 2)
            assert bench.count == 2

    asyncio.run(main())


def test_an_error_of_the_caller_stays_what_it_is(api: KubeServer) -> None:
    async def main() -> None:
        async with reading(api) as bench:
            await bench.first()
            raise ConfigError("a port is taken")

    with pytest.raises(ConfigError, match="a port is taken"):
        asyncio.run(main())


def test_hidden_annotations_do_not_fill_the_memory(api: KubeServer) -> None:
    value: dict[str, Any] = yaml.safe_load(pod())
    applied = "kubectl.kubernetes.io/last-applied-configuration"
    value["metadata"]["annotations"] = {applied: "x" * 1000, "a": "b"}
    api.put(value)

    async def main() -> None:
        async with reading(api) as bench:
            found = await bench.first()
            assert dict(found.objects.pods[0].meta.annotations) == {"a": "b"}

    asyncio.run(main())
