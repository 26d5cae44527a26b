"""Open connections are looked at again after a policy change: all of them, some each turn."""

from __future__ import annotations

import pytest

from control.kit.clock import SystemClock
from control.model.workload import Workload
from tests.support.engine.meshes import mesh
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.pod import Pod
from ztunnel.connections.recheck import RECHECKS_PER_TURN_MAX, Recheck
from ztunnel.loop.reactor import Reactor
from ztunnel.telemetry.outcome import Outcome
from ztunnel.transport.dial import Dialer
from ztunnel.transport.ends import RelayEnd


class Connection:
    outcome: Outcome

    def __init__(self) -> None:
        self.looked_at = 0
        self.aborted: RelayEnd | None = None

    def recheck(self, workload: Workload | None) -> None:
        self.looked_at += 1

    def abort(self, reason: RelayEnd) -> None:
        self.aborted = reason

    def on_bug(self) -> None:
        raise AssertionError


class Rig:
    def __init__(self, connections: int) -> None:
        reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"))
        engine = Engine(
            reactor,
            SystemClock(),
            mesh(),
            EngineConfig(),
            dialer=Dialer(reactor),
            access_log=None,
            ask_certificate=lambda _id, _waiting: None,
        )
        pod = engine.pods["p"] = Pod("p", "p", "shop", "p", -1)
        self.connections = [Connection() for _ in range(connections)]
        pod.inbound.update(dict.fromkeys(self.connections))
        self.recheck = Recheck(engine)
        self._reactor = reactor

    def turn(self) -> None:
        self._reactor.turn(0.0)

    def counts(self) -> set[int]:
        return {each.looked_at for each in self.connections}


def test_everyone_is_looked_at_once_some_each_turn() -> None:
    rig = Rig(2 * RECHECKS_PER_TURN_MAX + 1)
    rig.recheck.begin()
    rig.turn()
    assert sum(each.looked_at for each in rig.connections) == RECHECKS_PER_TURN_MAX
    for _ in range(5):
        rig.turn()
    assert rig.counts() == {1}


def test_a_change_in_each_turn_does_not_keep_it_from_the_last_connection() -> None:
    rig = Rig(3 * RECHECKS_PER_TURN_MAX)
    for _ in range(4):
        rig.recheck.begin()
        rig.turn()
    assert min(rig.counts()) >= 1


def test_who_was_looked_at_before_the_last_change_is_looked_at_again() -> None:
    rig = Rig(2 * RECHECKS_PER_TURN_MAX)
    rig.recheck.begin()
    rig.turn()
    rig.recheck.begin()
    for _ in range(8):
        rig.turn()
    assert rig.connections[0].looked_at == 2


def test_what_cannot_be_looked_at_does_not_stay_open() -> None:
    rig = Rig(3)
    rig.recheck.begin()
    rig.recheck.on_bug()
    assert {each.aborted for each in rig.connections} == {RelayEnd.POLICY}
