"""Marks of captured pods: written by whoever took the report, and taken back with the capture."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from control.kube.client import KubeClient
from control.server.compile.pods import pod_uid
from control.server.leader.marks import (
    FOLLOWER_S,
    HEARD_S,
    OWN_ANNOTATION,
    SEEN_S,
    UNKNOWN_S,
    CaptureMarks,
)
from control.server.metrics import Metrics
from control.server.sources.cluster import Cluster
from control.server.sources.objects import PodObject
from tests.support.clock import FakeClock
from tests.support.kube.client import with_client
from tests.support.kube.server import KubeServer, serving
from tests.support.kube.status import refusal

ISTIO = "ambient.istio.io/redirection"


@pytest.fixture
def kube() -> Iterator[KubeServer]:
    with serving() as server:
        server.namespace("shop")
        yield server


def put(kube: KubeServer, name: str, node: str = "n1", **annotations: str) -> str:
    """The pod's uid."""
    metadata = {"name": name, "namespace": "shop", "annotations": annotations}
    head = {"apiVersion": "v1", "kind": "Pod", "status": {"phase": "Running"}}
    kube.put({**head, "metadata": metadata, "spec": {"nodeName": node, "containers": []}})
    found = kube.get("v1", "Pod", name, "shop")
    assert found is not None
    return str(found["metadata"]["uid"])


def marked(kube: KubeServer, name: str) -> dict[str, str]:
    found = kube.get("v1", "Pod", name, "shop")
    assert found is not None
    annotations: dict[str, str] = found["metadata"].get("annotations") or {}
    return annotations


BOTH = {OWN_ANNOTATION: "enabled", ISTIO: "enabled"}


@dataclass
class Bench:
    kube: KubeServer
    client: KubeClient
    clock: FakeClock = field(default_factory=FakeClock)
    pods: tuple[PodObject, ...] = ()
    here: bool = True
    leads: bool = True
    released: list[tuple[str, frozenset[str]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        async def released(node: str, uids: frozenset[str]) -> None:
            self.released.append((node, uids))

        self.metrics = Metrics()
        self.marks = CaptureMarks(
            self.client,
            lambda uid: next((each for each in self.pods if pod_uid(each.meta) == uid), None),
            lambda node: self.here,
            released,
            leads=lambda: self.leads,
            metrics=self.metrics,
            clock=self.clock,
        )
        self.look()

    def look(self) -> None:
        """The source's news of now."""
        cluster = Cluster()
        for key, value in self.kube.store.objects.items():
            if key[0] == ("", "pods"):
                cluster.kinds["Pod"].put(json.dumps(value).encode())
        before, self.pods = self.pods, cluster.snapshot().objects.pods
        for uid in {pod_uid(each.meta) for each in before} - {
            pod_uid(each.meta) for each in self.pods
        }:
            self.marks.gone(uid)
        for pod in self.pods:
            self.marks.seen(pod_uid(pod.meta), pod)

    async def settle(self) -> None:
        await self.marks.step()
        self.look()
        await self.marks.step()

    @property
    def patches(self) -> int:
        return self.kube.faults.count("PATCH .*")


def bench(kube: KubeServer, act: Callable[[Bench], Awaitable[None]]) -> None:
    with_client(kube, lambda client: act(Bench(kube, client)))


def test_one_that_does_not_lead_writes_only_what_the_leader_has_not(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        subject.leads = False
        other = Bench(kube, subject.client)
        for each in (subject, other):
            each.marks.reported("n1", [uid])
        await subject.settle()
        assert subject.patches == 0
        await other.settle()
        subject.look()
        subject.clock.pass_s(FOLLOWER_S)
        await subject.settle()
        assert subject.patches == 1
        late = put(kube, "b")
        subject.look()
        subject.marks.reported("n1", [uid, late])
        subject.clock.pass_s(FOLLOWER_S)
        await subject.settle()
        assert subject.patches == 2, "the leader was told nothing of this one"

    bench(kube, act)


def test_a_reported_pod_is_marked_once_and_unmarked_with_its_release(kube: KubeServer) -> None:
    uid = put(kube, "a", note="kept")

    async def act(subject: Bench) -> None:
        assert subject.marks.reported("n1", {uid}) == set()
        await subject.settle()
        assert marked(kube, "a") == {**BOTH, "note": "kept"}
        subject.marks.reported("n1", {uid})
        await subject.settle()
        assert subject.patches == 1
        assert subject.marks.reported("n1", set()) == {uid}
        await subject.settle()
        assert marked(kube, "a") == {"note": "kept"}
        assert subject.patches == 2

    bench(kube, act)


def test_a_released_pod_counts_as_released_before_its_mark_is_gone(kube: KubeServer) -> None:
    uid = put(kube, "a", **BOTH)

    async def act(subject: Bench) -> None:
        (pod,) = subject.pods
        assert subject.marks.seen(uid, pod) is pod
        subject.marks.reported("n1", set())
        assert ISTIO not in subject.marks.seen(uid, pod).meta.annotations
        kube.fail("PATCH .*", refusal(403, "Forbidden", "no patch"))
        await subject.settle()
        assert ISTIO not in subject.marks.seen(uid, pod).meta.annotations
        subject.marks.reported("n1", {uid})
        assert subject.marks.seen(uid, pod) is pod

    bench(kube, act)


def test_another_pod_of_that_name_is_not_touched(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        subject.marks.reported("n1", {uid})
        kube.remove("v1", "Pod", "a", "shop")
        put(kube, "a")
        await subject.marks.step()
        assert subject.patches == 1
        assert marked(kube, "a") == {}
        await subject.settle()
        assert subject.patches == 1

    bench(kube, act)


def test_a_static_pod_is_reported_by_its_nodes_uid_and_marked_by_its_mirrors(
    kube: KubeServer,
) -> None:
    static = "0123456789abcdef0123456789abcdef"
    said = {"kubernetes.io/config.mirror": static}
    put(kube, "a", **said)

    async def act(subject: Bench) -> None:
        subject.marks.reported("n1", {static})
        await subject.settle()
        assert marked(kube, "a") == {**BOTH, **said}
        assert subject.marks.reported("n1", set()) == {static}
        await subject.settle()
        assert marked(kube, "a") == said

    bench(kube, act)


def test_a_node_speaks_for_its_own_pods_only(kube: KubeServer) -> None:
    uid, other = put(kube, "a"), put(kube, "b", node="n2", **BOTH)

    async def act(subject: Bench) -> None:
        assert subject.marks.reported("n2", {uid, other}) == set()
        assert subject.marks.reported("n1", set()) == set()
        await subject.settle()
        assert subject.patches == 0

    bench(kube, act)


def test_a_mark_that_only_istio_made_is_istios(kube: KubeServer) -> None:
    put(kube, "a", **{ISTIO: "enabled"})

    async def act(subject: Bench) -> None:
        assert subject.marks.reported("n1", set()) == set()
        await subject.settle()
        assert marked(kube, "a") == {ISTIO: "enabled"}

    bench(kube, act)


def test_a_report_may_come_before_the_pod(kube: KubeServer) -> None:
    async def act(subject: Bench) -> None:
        subject.marks.reported("n1", {"early", "never"})
        await subject.marks.step()
        metadata = {"name": "e", "namespace": "shop", "uid": "early"}
        kube.put(
            {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"nodeName": "n1"}}
        )
        subject.look()
        await subject.settle()
        assert marked(kube, "e") == BOTH
        subject.clock.pass_s(UNKNOWN_S)
        await subject.settle()
        assert subject.marks._pending == {}

    bench(kube, act)


def test_failures_are_tried_again_and_a_lost_mark_is_written_again(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        kube.fail("PATCH .*", cut=True, times=1)
        subject.marks.reported("n1", {uid})
        await subject.marks.step()
        await subject.marks.step()
        assert subject.patches == 1, "not at once"
        subject.clock.pass_s(1)
        await subject.marks.step()
        assert marked(kube, "a") == BOTH
        await subject.marks.step()
        assert subject.patches == 2, "its news is on the way"
        subject.clock.pass_s(SEEN_S)
        await subject.marks.step()
        assert subject.patches == 2, "it is there, the API server says"
        put(kube, "a")
        subject.clock.pass_s(SEEN_S)
        await subject.marks.step()
        assert subject.patches == 3

    bench(kube, act)


def test_a_node_that_reports_elsewhere_by_now_is_believed_by_its_marks(kube: KubeServer) -> None:
    uid = put(kube, "a")
    gone: dict[str, Any] = {OWN_ANNOTATION: "disabled"}

    async def act(subject: Bench) -> None:
        subject.marks.reported("n1", {uid})
        await subject.settle()
        put(kube, "a", **gone)  # another replica took its release
        subject.look()
        await subject.marks.step()
        assert subject.released == [], "it is here: its own report counts"
        subject.here = False
        put(kube, "a", **BOTH)
        subject.look()
        await subject.marks.step()
        put(kube, "a", **gone)
        subject.look()
        await subject.marks.step()
        assert subject.released == [], "it may speak again"
        subject.clock.pass_s(HEARD_S)
        await subject.marks.step()
        assert subject.released == [("n1", frozenset({uid}))]

    bench(kube, act)


def test_a_mark_that_a_hand_took_away_releases_no_pod_of_a_node_that_tells_all_replicas(
    kube: KubeServer,
) -> None:
    """Peers would speak plaintext to it, and anybody who may change a pod could have that."""
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        subject.here = False  # the agent's stream is at another replica
        subject.marks.reported("n1", {uid})
        await subject.settle()
        put(kube, "a", **{OWN_ANNOTATION: "disabled"})
        for _ in range(5):
            subject.look()
            await subject.marks.step()
            subject.clock.pass_s(30)
            subject.marks.reported("n1", {uid})
        assert subject.released == []

    bench(kube, act)


def test_a_mark_that_came_and_went_unseen_is_not_written_again(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        subject.here = False
        subject.marks.reported("n1", {uid})
        await subject.marks.step()
        put(kube, "a", **{OWN_ANNOTATION: "disabled"})  # by another replica, before any news
        subject.look()
        subject.clock.pass_s(SEEN_S)
        await subject.settle()
        assert subject.patches == 1
        subject.clock.pass_s(HEARD_S)
        await subject.marks.step()
        assert subject.released == [("n1", frozenset({uid}))]

    bench(kube, act)


def test_a_release_before_the_marks_news_takes_it_back(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        subject.marks.reported("n1", {uid})
        await subject.marks.step()
        subject.marks.reported("n1", set())  # the source has not seen the mark
        await subject.marks.step()
        assert marked(kube, "a") == {}
        await subject.settle()
        assert subject.patches == 2
        assert subject.marks._pending == {}

    bench(kube, act)


def test_a_release_while_the_mark_is_written_takes_it_back(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        kube.fail("PATCH .*", after_s=0.1, times=1)
        subject.marks.reported("n1", {uid})
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(subject.marks.step())
            while not subject.patches:  # noqa: ASYNC110 another thread
                await asyncio.sleep(0.005)
            subject.marks.reported("n1", set())
        assert marked(kube, "a") == BOTH
        await subject.marks.step()
        assert marked(kube, "a") == {}

    bench(kube, act)


def test_marking_ends_with_its_task(kube: KubeServer) -> None:
    uid = put(kube, "a")

    async def act(subject: Bench) -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.marks.run())
            subject.marks.reported("n1", {uid})
            while marked(kube, "a") != BOTH:  # noqa: ASYNC110 another thread
                await asyncio.sleep(0.01)
            running.cancel()

    bench(kube, act)
