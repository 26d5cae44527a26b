"""From a snapshot to changed streams: debounce, problems once, metrics, captures."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path

import pytest

from control.kit.clock import SystemClock
from control.model.workload import TunnelProtocol
from control.server.compile.pods import REDIRECTION_ANNOTATION
from control.server.compile.settings import Settings
from control.server.metrics import Metrics, short_type
from control.server.sources.captured import CapturedSet
from control.server.sources.objects import PodObject
from control.server.sources.problem import Problem
from control.server.xds import publish
from control.server.xds.cache import Change
from control.server.xds.publish import LINE_EVERY_S, Publisher
from control.wire.types import ADDRESS_TYPE
from tests.support.clock import FakeClock
from tests.support.manifests import load, pod, policy
from tests.support.mesh_worlds import AMBIENT, namespace
from tests.support.virtual_time import run_virtual

UID = "Kubernetes//Pod/shop/web"
SELECTS_NOBODY = "{selector: {matchLabels: {app: nobody}}, rules: [{}]}"


def publisher(folder: Path) -> Publisher:
    captured = CapturedSet(folder / "captured", is_new=True)
    return Publisher(Settings(), captured, Metrics(), SystemClock())


def test_several_offers_in_a_moment_are_one_publication(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    heard: list[set[str]] = []

    async def whole() -> None:
        published = asyncio.Event()

        def hear(change: Change) -> None:
            heard.append(set(change[ADDRESS_TYPE]))
            published.set()

        subject.listen(hear)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            for name in ("a", "b", "web"):
                subject.offer(load(pod(name)))
                await asyncio.sleep(0)
            await published.wait()
            running.cancel()

    asyncio.run(whole())
    assert heard == [{UID}]


def test_a_rollout_has_a_line_now_and_then_and_a_policy_always(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = FakeClock()
    subject = Publisher(Settings(), CapturedSet(tmp_path / "captured"), Metrics(), clock)
    caplog.set_level(logging.INFO, "source")

    def put(text: str) -> list[str]:
        caplog.clear()
        subject.offer(load(text))
        subject.publish()
        return [each.message for each in caplog.records]

    pods = [pod(f"web-{number}") for number in range(5)]
    assert put(pods[0]) == ["source.loaded", "mesh.published"]
    for each in pods[1:4]:
        assert put(each) == []
    rule = policy("{action: DENY, rules: [{}]}")
    assert put(pods[3] + rule) == ["mesh.published"]
    assert vars(caplog.records[0])["fields"]["before_publications"] == 3
    clock.pass_s(LINE_EVERY_S)
    assert put(pods[4] + rule) == ["mesh.published"]
    assert "before_publications" not in vars(caplog.records[0])["fields"]


def test_a_problem_is_told_once_and_counted_while_it_lasts(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    subject = publisher(tmp_path)
    broken = load(policy("{rules: 5}"))
    with caplog.at_level(logging.WARNING):
        subject.offer(broken)
        subject.offer(broken)
    assert [each.message for each in caplog.records] == ["policy.rejected"]
    registry = subject._metrics.registry
    labels = {"reason": "invalid"}
    assert registry.get_sample_value("tulle_control_problems", labels) == 1
    subject.offer(load(pod()))
    assert registry.get_sample_value("tulle_control_problems", labels) is None
    assert registry.get_sample_value("tulle_control_objects", {"kind": "Pod"}) == 1


def test_who_calls_itself_a_static_pods_mirror_takes_nothing_from_it(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    static = "0123456789abcdef0123456789abcdef"
    said = f"annotations: {{kubernetes.io/config.mirror: '{static}'}}, creationTimestamp: "
    times = {"web": "2026-01-01T00:00:00Z", "evil": "2026-01-02T00:00:00Z"}
    texts = (
        pod(name, address=f"10.1.0.{at}").replace("labels:", f"{said}'{time}', labels:")
        for at, (name, time) in enumerate(times.items(), 1)
    )
    subject.offer(load("".join(texts)))
    subject._captured.take("n1", {static: ()})
    subject.publish()
    assert subject.mesh.pods[static].name == "web"
    found = {each.name: each.tunnel_protocol for each in subject.mesh.workloads.values()}
    assert found == {"web": TunnelProtocol.HBONE, "evil": TunnelProtocol.NONE}


def test_a_captured_pod_is_hbone_and_only_its_own_node_can_say_so(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    subject.offer(load(pod()))
    subject.publish()
    (uid,) = subject.mesh.pods
    captured = subject._captured
    subject.refresh(captured.take("n2", {uid: ()}))
    subject.publish()
    assert subject.mesh.workloads[UID].tunnel_protocol is TunnelProtocol.NONE
    subject.refresh(captured.take("n1", {uid: ()}))
    subject.publish()
    assert subject.mesh.workloads[UID].tunnel_protocol is TunnelProtocol.HBONE
    subject.offer(load(""))
    subject.publish()
    assert UID not in subject.mesh.workloads
    subject.offer(load(pod()))
    subject.publish()
    assert subject.mesh.workloads[UID].tunnel_protocol is TunnelProtocol.HBONE, "it runs on"


def test_captures_of_many_reports_are_told_together(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    names = [f"p{number}" for number in range(250)]
    subject.offer(load("".join(pod(each, address=f"10.1.1.{at}") for at, each in enumerate(names))))
    subject.publish()
    heard: list[int] = []
    subject.listen(lambda change: heard.append(len(change[ADDRESS_TYPE])))
    uids = list(subject.mesh.pods)

    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run_captures())
            async with asyncio.TaskGroup() as reports:
                for start in (0, 125):
                    part = uids[start : start + 125]
                    subject._captured.take("n1", dict.fromkeys(uids[: start + 125], ()))
                    reports.create_task(subject.tell_captures(part))
            assert {each.tunnel_protocol for each in subject.mesh.workloads.values()} == {
                TunnelProtocol.HBONE
            }
            subject._captured.take("n1", dict.fromkeys(uids[1:], ()))
            await subject.tell_captures(uids[:1])
            running.cancel()

    asyncio.run(whole())
    assert heard == [250, 1]


def test_a_listener_that_left_hears_nothing(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    heard: list[Change] = []
    leave = subject.listen(heard.append)
    leave()
    subject.offer(load(pod()))
    subject.publish()
    assert heard == []


def test_identities_are_those_of_pods_that_run(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    text = pod(spec="serviceAccountName: a") + pod("b").replace("Running", "Failed")
    subject.offer(load(text))
    subject.publish()
    assert subject.mesh.identities == {("n1", "shop", "a")}


def test_labels_of_foreign_types_are_bounded() -> None:
    assert short_type(ADDRESS_TYPE) == "Address"
    assert short_type("anything/else.Thing") == "other"


def test_notes_on_a_disputed_address_follow_the_reports_once_it_is_quiet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject = publisher(tmp_path)
    subject.offer(load(pod("a") + pod("b")))  # both at one address
    subject.publish()
    assert [each.object for each in subject.mesh.notes] == ["Pod shop/b"]
    monkeypatch.setattr(publish, "NOTES_QUIET_S", 0.02)
    made: list[str] = []
    (uid,) = (uid for uid, each in subject.mesh.pods.items() if each.name == "b")

    async def whole() -> None:
        agreed = asyncio.Event()

        def tell(note: Problem, _: str) -> None:
            made.append(note.object)
            if note.object == "Pod shop/a":
                agreed.set()

        monkeypatch.setattr(publish, "_tell", tell)
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run_captures())
            for captured in ({uid: ()}, {}, {uid: ()}):
                subject._captured.take("n1", captured)
                await subject.tell_captures([uid])
            assert subject.mesh.workloads["Kubernetes//Pod/shop/a"].addresses == ()
            async with asyncio.timeout(5):
                await agreed.wait()
            running.cancel()

    asyncio.run(whole())
    assert len(made) < 3, "not with each report"


class _NoMarks:
    """Marks that nobody has written."""

    def reported(self, node: str, uids: Iterable[str]) -> frozenset[str]:
        return frozenset()

    def seen(self, uid: str, pod: PodObject) -> PodObject:
        return pod

    def gone(self, uid: str) -> None:
        pass


def test_in_a_cluster_nodes_that_had_an_agent_are_in_doubt(tmp_path: Path) -> None:
    """Nodes report to the others while a replica is away. Where no agent runs nothing changes."""
    before = CapturedSet(tmp_path, is_new=True)
    before.take("n3", {"released": ()})
    before.save("n3")
    captured = CapturedSet(tmp_path, is_shared=True)
    captured.marks = _NoMarks()
    subject = Publisher(Settings(), captured, Metrics(), SystemClock())
    mode = "istio.io/dataplane-mode: ambient"
    marked = pod("marked", address="10.1.0.2").replace(
        "labels:", f"annotations: {{{REDIRECTION_ANNOTATION}: enabled}}, labels:"
    )
    elsewhere = pod("elsewhere", labels=mode, address="10.1.0.3").replace("n1", "n2")
    later = pod("later", labels=mode, address="10.1.0.4").replace("n1", "n3")
    subject.offer(load(pod(labels=mode) + marked + elsewhere + later))
    subject.publish()
    found = {each.name: each.tunnel_protocol for each in subject.mesh.workloads.values()}
    hbone, none = TunnelProtocol.HBONE, TunnelProtocol.NONE
    assert found == {"web": hbone, "marked": hbone, "later": hbone, "elsewhere": none}


def test_a_mesh_that_is_leaving_keeps_its_pods_until_every_replica_is_new(tmp_path: Path) -> None:
    settings = Settings(release_all=True, keeps_pods=True)
    captured = CapturedSet(tmp_path / "captured", is_new=True)
    subject = Publisher(settings, captured, Metrics(), SystemClock())
    subject.offer(load(pod(labels="istio.io/dataplane-mode: ambient")))
    subject.publish()
    (uid,) = subject.mesh.pods

    async def whole() -> None:
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            letting_go = tasks.create_task(subject.let_go())
            await asyncio.sleep(publish.LET_GO_S - 1)
            assert subject.mesh.pods[uid].enrolled
            await letting_go
            await asyncio.sleep(1)
            assert not subject.mesh.pods[uid].enrolled
            running.cancel()

    run_virtual(whole())
    stays = Publisher(Settings(), captured, Metrics(), SystemClock())
    asyncio.run(stays.let_go())  # at once, and nothing goes


class _BusyClock(FakeClock):
    """A clock that is a millisecond on whenever somebody looks."""

    def monotonic_s(self) -> float:
        self.pass_s(0.001)
        return super().monotonic_s()


def test_others_are_served_while_a_large_change_is_published(tmp_path: Path) -> None:
    captured = CapturedSet(tmp_path / "captured", is_new=True)
    subject = Publisher(Settings(), captured, Metrics(), _BusyClock())
    names = [f"p{number}" for number in range(100)]
    subject.offer(load("".join(pod(each, address=f"10.1.1.{at}") for at, each in enumerate(names))))
    turns, seen = 0, set()

    async def whole() -> None:
        nonlocal turns
        done = asyncio.Event()
        subject.listen(lambda change: done.set())
        async with asyncio.TaskGroup() as tasks:
            running = tasks.create_task(subject.run())
            while not done.is_set():
                turns += 1
                if subject.shown.is_set():
                    seen.add(len(subject.cache.entries(ADDRESS_TYPE)))
                await asyncio.sleep(0)
            running.cancel()

    asyncio.run(whole())
    assert turns > 60, "some four hundred steps of a millisecond, five in a row"
    assert seen <= {0, 100}, "nobody sees half of a change"


def test_a_publication_that_is_cut_off_keeps_no_stream_waiting(tmp_path: Path) -> None:
    subject = publisher(tmp_path)
    subject.offer(load(pod("a") + pod("b", address="10.1.0.2")))
    steps = subject._steps()
    for _ in steps:
        if not subject.shown.is_set():
            break
    assert not subject.shown.is_set()
    steps.close()  # type: ignore[attr-defined]  # a generator
    assert subject.shown.is_set()


def test_each_line_about_a_note_is_a_step(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A thousand lines at once would keep a probe waiting."""
    subject = publisher(tmp_path)
    caplog.set_level(logging.WARNING, "source")
    subject.offer(load("".join(policy(SELECTS_NOBODY, name=f"p{at}") for at in range(20))))
    lines = [len(caplog.records) for _ in subject._steps()]
    assert lines[-1] == 20
    assert max(after - before for before, after in pairwise(lines)) == 1


@pytest.fixture
def young() -> Iterator[list[int]]:
    """Objects that each collection looked at; the collector counts as in a control plane."""
    seen: list[int] = []

    def collected(phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            seen.append(sum(len(gc.get_objects(each)) for each in range(info["generation"] + 1)))

    before = gc.get_threshold()
    gc.collect()
    gc.set_threshold(2_000, 2, 5_000)
    gc.callbacks.append(collected)
    yield seen
    gc.callbacks.remove(collected)
    gc.set_threshold(*before)


def test_new_objects_in_place_of_old_ones_are_not_looked_at_in_one_go(
    tmp_path: Path, young: list[int]
) -> None:
    """A label of a namespace: the collector counts what came less what went, and waits."""
    subject = publisher(tmp_path)
    pods = "".join(pod(f"web-{at}", address=f"10.1.{at >> 8}.{at & 255}") for at in range(2500))
    subject.offer(load(namespace() + pods))
    subject.publish()
    subject.offer(load(namespace(AMBIENT) + pods))
    gc.collect()
    young.clear()
    asyncio.run(subject._publish(with_objects=True))
    assert all(each.enrolled for each in subject.mesh.pods.values())
    assert max(young, default=0) < 6_000


def test_others_are_served_while_names_are_put_in_order(tmp_path: Path) -> None:
    captured = CapturedSet(tmp_path / "captured", is_new=True)
    subject = Publisher(Settings(), captured, Metrics(), _BusyClock())
    names = [f"p{number}" for number in range(100)]
    subject.offer(load("".join(pod(each, address=f"10.1.1.{at}") for at, each in enumerate(names))))
    subject.publish()
    turns = 0

    async def whole() -> None:
        nonlocal turns
        async with asyncio.TaskGroup() as tasks:
            both = [tasks.create_task(subject.indexed()) for _ in range(2)]
            while not all(each.done() for each in both):
                turns += 1
                await asyncio.sleep(0)
        await subject.indexed()

    asyncio.run(whole())
    assert turns > 10, "a hundred steps of a millisecond"
    assert subject.cache.has_index
    assert subject.cache.resolve("/10.1.1.7") == ("Kubernetes//Pod/shop/p7",)
