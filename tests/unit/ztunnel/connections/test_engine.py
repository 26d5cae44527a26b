"""One set of parts for a worker, and the end of a pod."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from control.kit.clock import SystemClock
from control.model.workload import Workload
from tests.support.engine.meshes import mesh
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.engine import RESPONSE_S, Engine, EngineConfig
from ztunnel.connections.first_word import PATIENCE_S
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.telemetry.outcome import Outcome
from ztunnel.transport.dial import Dialer
from ztunnel.transport.ends import RelayEnd


class Connection:
    outcome: Outcome

    def __init__(self) -> None:
        self.aborted: list[RelayEnd] = []
        self.due: list[str] = []

    def abort(self, reason: RelayEnd) -> None:
        self.aborted.append(reason)

    def recheck(self, workload: Workload | None) -> None:
        raise AssertionError

    def on_response_due(self) -> None:
        self.due.append("response")

    def on_first_word_due(self) -> None:
        self.due.append("first word")

    def on_bug(self) -> None:
        raise AssertionError


class Rig:
    def __init__(self) -> None:
        self.bugs: list[Served] = []
        self.time = FakeTime()
        self.reactor = Reactor(self.bugs.append, self.time)
        self.engine = Engine(
            self.reactor,
            SystemClock(),
            mesh(),
            EngineConfig(),
            dialer=Dialer(self.reactor),
            access_log=None,
            ask_certificate=lambda _who, _waiting: None,
        )

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.reactor.turn(0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.reactor.close()
    assert not made.bugs


def test_leaving_twice_counts_once(rig: Rig) -> None:
    pod, connection = Pod("p", "p", "shop", "p", -1), Connection()
    rig.engine.enter(pod.inbound, connection)
    assert rig.engine.connections == 1
    rig.engine.leave(pod.inbound, connection)
    rig.engine.leave(pod.inbound, connection)
    assert rig.engine.connections == 0


def test_removing_a_pod_ends_what_it_has_open_and_closes_its_namespace(rig: Rig) -> None:
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    pod = rig.engine.pods["p"] = Pod("p", "p", "shop", "p", netns)
    ours, theirs = Connection(), Connection()
    rig.engine.enter(pod.outbound, ours)
    rig.engine.enter(pod.inbound, theirs)
    rig.engine.remove_pod("p")
    assert ours.aborted == theirs.aborted == [RelayEnd.POD_DELETED]
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(netns)
    rig.engine.remove_pod("p")  # unknown by now: nothing happens


def test_deadlines_reach_the_connections_that_wait(rig: Rig) -> None:
    connection = Connection()
    rig.engine.first_words.start(connection)
    rig.engine.responses.start(connection)
    rig.pass_s(PATIENCE_S)
    assert connection.due == ["first word"]
    rig.pass_s(RESPONSE_S)
    assert connection.due == ["first word", "response"]
