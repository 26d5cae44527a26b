"""Connections that wait for their pod's workload: begun when it comes, or given up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.model.workload import Workload
from tests.support.engine.tunnel_memory import FakeTime
from tests.support.engine.tunnel_mesh import mesh_entries
from ztunnel.connections import newcomers
from ztunnel.connections.newcomers import WAITING_MAX, WORKLOAD_S, Newcomers
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.mesh.state import State

CLIENT = Workload(uid="client", name="client", namespace="demo", service_account="client")


class Bench:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.subject = Newcomers(self.reactor)
        self.state = State()
        self.pod = self.add("client")
        self.fates: list[str] = []

    @staticmethod
    def add(name: str) -> Pod:
        return Pod(name, name, "demo", name, -1)

    def wait(self, pod: Pod | None = None) -> bool:
        return self.subject.wait(
            pod or self.pod,
            lambda workload: self.fates.append(f"begun as {workload.name}"),
            lambda: self.fates.append("given up"),
        )

    def tell(self, *workloads: Workload) -> None:
        self.state.apply(mesh_entries(*workloads))
        self.subject.told(self.state)

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.reactor.turn(0)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.reactor.close()
    assert not made.bugs
    assert len(made.subject) == 0
    assert made.subject._waiting == {}


def test_they_begin_when_the_pod_is_told_of_and_others_wait_on(bench: Bench) -> None:
    assert bench.wait()
    assert bench.wait()
    assert bench.wait(bench.add("other"))
    bench.tell()
    assert bench.fates == []
    bench.tell(CLIENT)
    assert bench.fates == ["begun as client"] * 2
    bench.pass_s(WORKLOAD_S)
    assert bench.fates == ["begun as client"] * 2 + ["given up"]


def test_each_is_given_up_after_its_own_time(bench: Bench) -> None:
    bench.wait()
    bench.pass_s(WORKLOAD_S / 2)
    bench.wait()
    bench.pass_s(WORKLOAD_S / 2)
    assert bench.fates == ["given up"]
    bench.tell(CLIENT)
    assert bench.fates == ["given up", "begun as client"]


def test_a_pod_has_so_many_at_once_and_no_pod_takes_anothers(bench: Bench) -> None:
    assert all(bench.wait() for _ in range(WAITING_MAX))
    assert not bench.wait()
    assert bench.wait(bench.add("other"))
    bench.pass_s(WORKLOAD_S)
    assert bench.fates == ["given up"] * (newcomers.WAITING_MAX + 1)


def test_they_end_with_their_pod(bench: Bench) -> None:
    bench.wait()
    other = bench.add("other")
    bench.wait(other)
    bench.subject.leave(bench.pod)
    assert bench.fates == ["given up"]
    bench.subject.leave(other)
