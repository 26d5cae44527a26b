"""Pods that the supervisor holds: served once, replaced whole, and nothing of them left open."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from control.kit.errors import MeshError
from control.model.identity import SpiffeId
from tests.support.engine.meshes import spiffe
from ztunnel.supervisor import pods
from ztunnel.supervisor.bind import Listeners, NamespaceUnusable
from ztunnel.supervisor.pods import Claim, HeldPod, HeldPods, TooManyPods, WorkersNotReady

WEB, API = Claim("u1", "web", "shop", "web"), Claim("u2", "api", "shop", "api")


class Bench:
    """Held pods of two workers, with everything around them written down."""

    def __init__(self, *, fixed_ports: bool = False) -> None:
        self.told: list[str] = []
        self.held: dict[SpiffeId, set[str]] = {}
        self.sockets: list[socket.socket] = []
        self.unusable = False
        self.silent = False  # the certificate service
        self.asked: list[SpiffeId] = []
        self.pods = HeldPods(
            self,
            self,
            workers=2,
            trust_domain="cluster.local",
            fixed_ports=fixed_ports,
            listen=self.listen,
        )

    # The kernel

    def listen(self, netns: int, workers: int, *, fixed_ports: bool) -> tuple[Listeners, ...]:
        if self.unusable:
            raise NamespaceUnusable("no such network")
        made = [[socket.socket() for _ in range(3)] for _ in range(workers)]
        self.sockets += [each for three in made for each in three]
        return tuple(Listeners(*three) for three in made)

    # The workers: each says at once that it listens

    def add_pod(self, pod: HeldPod) -> None:
        self.told.append(f"+{pod.uid}")
        for worker in range(2):
            self.pods.worker_ready(worker, pod.uid)

    def delete_pod(self, uid: str) -> None:
        self.told.append(f"-{uid}")

    # The certificates

    def hold(self, identity: SpiffeId, holder: str) -> None:
        self.held.setdefault(identity, set()).add(holder)

    def release(self, identity: SpiffeId, holder: str) -> None:
        self.held[identity].discard(holder)

    async def answer(self, identity: SpiffeId) -> None:
        self.asked.append(identity)
        if self.silent:
            await asyncio.Event().wait()

    def add(self, claim: Claim, namespace: Path) -> tuple[int, ...]:
        """Add a pod whose namespace is this file."""
        ready = self.pods.add(claim, os.open(namespace, os.O_RDONLY))

        async def answered() -> tuple[int, ...]:
            return await ready()

        return asyncio.run(answered())

    @property
    def identities(self) -> set[SpiffeId]:
        return {identity for identity, holders in self.held.items() if holders}


@pytest.fixture
def bench() -> Iterator[Bench]:
    before = set(os.listdir("/proc/self/fd"))
    made = Bench()
    yield made
    for pod in list(made.pods.all()):
        made.pods.delete(pod.uid)
    assert all(each.fileno() == -1 for each in made.sockets)
    assert set(os.listdir("/proc/self/fd")) == before


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "here").touch()
    return tmp_path / "here"


@pytest.fixture
def there(tmp_path: Path) -> Path:
    (tmp_path / "there").touch()
    return tmp_path / "there"


def test_a_pod_is_answered_with_all_workers_listeners(bench: Bench, here: Path) -> None:
    assert bench.add(WEB, here) == tuple(each.fileno() for each in bench.sockets)
    assert bench.told == ["+u1"]
    assert bench.identities == {spiffe("web")}
    assert (len(bench.pods), "u1" in bench.pods, bench.pods.started) == (1, True, 1)


def test_the_same_pod_again_is_no_news(bench: Bench, here: Path) -> None:
    first = bench.add(WEB, here)
    assert bench.add(WEB, here) == first
    assert bench.told == ["+u1"]


def test_a_pod_in_another_namespace_is_replaced_and_keeps_its_certificate(
    bench: Bench, here: Path, there: Path
) -> None:
    bench.add(WEB, here)
    (before,) = bench.held[spiffe("web")]
    bench.add(WEB, there)
    assert bench.told == ["+u1", "-u1", "+u1"]
    (after,) = bench.held[spiffe("web")]
    assert after != before
    assert [each.fileno() == -1 for each in bench.sockets] == [True] * 6 + [False] * 6


def test_a_deleted_pod_leaves_nothing(bench: Bench, here: Path) -> None:
    bench.add(WEB, here)
    bench.pods.delete("u1")
    bench.pods.delete("u1")
    assert (bench.told, bench.identities, bench.pods.stopped) == (["+u1", "-u1"], set(), 1)


def test_a_snapshot_is_the_whole_truth(bench: Bench, here: Path) -> None:
    bench.add(WEB, here)
    bench.add(API, here)
    assert not bench.pods.snapshot.is_set()
    bench.pods.keep_only({"u2", "never seen"})
    assert bench.pods.snapshot.is_set()
    assert [each.uid for each in bench.pods.all()] == ["u2"]


def test_a_namespace_that_cannot_be_used_costs_nothing(bench: Bench, here: Path) -> None:
    bench.unusable = True
    with pytest.raises(NamespaceUnusable):
        bench.add(WEB, here)
    assert (bench.told, bench.identities, len(bench.pods)) == ([], set(), 0)


def test_pods_are_bounded(bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pods, "PODS_MAX", 1)
    bench.add(WEB, here)
    with pytest.raises(TooManyPods):
        bench.add(API, here)
    assert bench.identities == {spiffe("web")}


def test_a_pod_that_not_every_worker_serves_is_not_acknowledged(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pods, "READY_DEADLINE_S", 0.01)
    bench.add(WEB, here)
    bench.pods.worker_lost(1)
    with pytest.raises(WorkersNotReady, match="1 of 2"):
        bench.add(WEB, here)
    bench.pods.worker_ready(1, "u1")
    bench.pods.worker_ready(1, "nobody")
    assert bench.add(WEB, here)


def test_until_the_first_snapshot_a_pod_waits_for_its_certificate(
    bench: Bench, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the answer a ztunnel gets connections that an older one serves with a certificate."""
    bench.add(WEB, here)
    assert bench.asked == [spiffe("web")]
    bench.silent = True
    monkeypatch.setattr(pods, "READY_DEADLINE_S", 0.05)
    assert bench.add(API, here), "it is not waited for for ever"
    bench.pods.keep_only({"u1", "u2"})
    bench.add(API, here)
    assert bench.asked == [spiffe("web"), spiffe("api")]


def test_all_pods_together_wait_no_longer_than_that(here: Path) -> None:
    bench = Bench()
    bench.silent = True
    bench.pods._patience_s = 0.02
    began_s = time.monotonic()
    for number in range(50):
        bench.add(Claim(f"u{number}", "web", "shop", "web"), here)
    assert time.monotonic() - began_s < 4.0, "one alone may wait that long"
    for pod in list(bench.pods.all()):
        bench.pods.delete(pod.uid)


def test_fixed_ports_are_answered_without_sockets(here: Path) -> None:
    bench = Bench(fixed_ports=True)
    assert bench.add(WEB, here) == ()
    bench.pods.delete("u1")


def test_at_the_end_the_listeners_close_and_the_pods_stay(bench: Bench, here: Path) -> None:
    bench.add(WEB, here)
    bench.pods.close_listeners()
    assert all(each.fileno() == -1 for each in bench.sockets)
    assert len(bench.pods) == 1


def test_reasons_are_for_the_agent() -> None:
    reasons = [each.reason for each in (TooManyPods, WorkersNotReady, NamespaceUnusable)]
    assert reasons == ["too_many_pods", "workers_not_ready", "netns_unusable"]
    assert all(issubclass(each, MeshError) for each in (TooManyPods, WorkersNotReady))
