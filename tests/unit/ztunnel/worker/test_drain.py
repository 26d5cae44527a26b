"""The end of a worker: first it serves on and says when nothing is open, then it drains."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from control.kit.clock import SystemClock
from control.model.workload import Workload
from tests.support.engine.meshes import mesh
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.telemetry.outcome import Outcome
from ztunnel.transport.dial import Dialer
from ztunnel.transport.ends import RelayEnd
from ztunnel.worker.drain import TICK_S, Drain, Leave

DEADLINE_S = 5.0


class Connection:
    outcome: Outcome

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.aborted: RelayEnd | None = None
        rig.engine.enter(rig.pod.inbound, self)

    def recheck(self, workload: Workload | None) -> None:
        raise AssertionError

    def end(self) -> None:
        self._rig.engine.leave(self._rig.pod.inbound, self)

    def abort(self, reason: RelayEnd) -> None:
        self.aborted = reason
        self.end()

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
        self.pod = self.engine.pods["p"] = Pod("p", "p", "shop", "p", -1)
        self.done = 0
        self.drain = Drain(self.engine, DEADLINE_S, self._count)
        self.told: list[bool] = []
        self.leave = Leave(self.engine, self.told.append)

    def _count(self) -> None:
        self.done += 1

    def pass_s(self, seconds: float) -> None:
        self.time.now_s += seconds
        self.reactor.turn(0)


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    made.reactor.close()
    assert not made.bugs


def test_with_nothing_open_it_is_over_at_the_first_tick(rig: Rig) -> None:
    rig.drain.begin()
    assert rig.done == 0
    rig.pass_s(TICK_S)
    assert rig.done == 1
    rig.pass_s(DEADLINE_S)
    assert rig.done == 1


def test_it_waits_for_the_last_connection(rig: Rig) -> None:
    open_one = Connection(rig)
    rig.drain.begin()
    rig.pass_s(TICK_S)
    assert rig.done == 0
    open_one.end()
    rig.pass_s(TICK_S)
    assert rig.done == 1
    assert open_one.aborted is None


def test_at_the_deadline_what_is_open_is_cut(rig: Rig) -> None:
    open_one = Connection(rig)
    rig.drain.begin()
    rig.pass_s(DEADLINE_S)
    assert rig.done == 1
    assert open_one.aborted is RelayEnd.DRAINED
    assert rig.engine.connections == 0


def test_new_tunnels_are_drained_as_well(rig: Rig) -> None:
    rig.drain.begin()
    assert rig.engine.pool.draining


class Listening:
    """One connection waits in its queue."""

    def __init__(self, rig: Rig) -> None:
        self._rig = rig
        self.taken: list[Connection] = []
        self.closed = False

    def take_rest(self) -> None:
        assert not self.closed
        self.taken.append(Connection(self._rig))

    def close(self) -> None:
        self.closed = True


def test_a_drain_takes_what_waits_before_it_closes(rig: Rig) -> None:
    listener = Listening(rig)
    rig.pod.listeners.append(listener)
    rig.drain.begin()
    assert listener.closed
    rig.pass_s(TICK_S)
    assert rig.done == 0
    listener.taken[0].end()
    rig.pass_s(TICK_S)
    assert rig.done == 1


def test_whoever_waits_for_the_control_planes_word_is_waited_for(rig: Rig) -> None:
    rig.engine.newcomers.wait(rig.pod, lambda _workload: None, lambda: None)
    rig.drain.begin()
    rig.pass_s(TICK_S)
    assert rig.done == 0
    rig.engine.newcomers.leave(rig.pod)
    rig.pass_s(TICK_S)
    assert rig.done == 1


def test_a_leaving_worker_listens_on_and_tells_each_change_once(rig: Rig) -> None:
    listener, open_one = Listening(rig), Connection(rig)
    rig.pod.listeners.append(listener)
    rig.leave.begin()
    for _ in range(2):
        rig.pass_s(TICK_S)
    assert rig.told == [False]
    open_one.end()
    for _ in range(2):
        rig.pass_s(TICK_S)
    another = Connection(rig)
    rig.pass_s(TICK_S)
    another.end()
    assert rig.told == [False, True, False]
    rig.leave.end()
    rig.pass_s(TICK_S)
    assert rig.told == [False, True, False]
    assert not listener.closed
    assert not rig.engine.pool.draining
