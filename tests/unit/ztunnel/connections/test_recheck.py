"""Open connections are looked at again after a policy change: all of them, some each turn."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.kit.clock import SystemClock
from control.model.policy import Action, Policy, PolicyScope, Rule
from control.model.policy import Connection as PolicyConnection
from control.model.workload import Workload
from tests.support.engine.meshes import at, entry, mesh, pod, spiffe
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.inbound import still_permitted
from ztunnel.connections.pod import Pod
from ztunnel.connections.recheck import RECHECKS_PER_TURN_MAX, Recheck
from ztunnel.loop.reactor import Reactor
from ztunnel.mesh.entries import Entry, Op
from ztunnel.telemetry.outcome import Outcome
from ztunnel.transport.dial import Dialer
from ztunnel.transport.ends import RelayEnd


class Connection:
    outcome: Outcome

    def __init__(self) -> None:
        self.engine: Engine | None = None
        self.asked: PolicyConnection | None = None
        self.refused = False
        self.looked_at = 0
        self.aborted: RelayEnd | None = None

    def recheck(self, workload: Workload | None) -> None:
        self.looked_at += 1
        if self.engine is not None:
            self.refused = not still_permitted(self.engine, workload, self.asked)

    def abort(self, reason: RelayEnd) -> None:
        self.aborted = reason

    def on_bug(self) -> None:
        raise AssertionError


class Rig:
    def __init__(self, connections: int, *values: Workload) -> None:
        reactor = Reactor(lambda item: pytest.fail(f"a bug in {item}"))
        engine = Engine(
            reactor,
            SystemClock(),
            mesh(*values, node="n1"),
            EngineConfig(),
            dialer=Dialer(reactor),
            access_log=None,
            ask_certificate=lambda _id, _waiting: None,
        )
        pod = engine.pods["p"] = Pod("p", "p", "shop", "p", -1)
        self.connections = [Connection() for _ in range(connections)]
        pod.inbound.update(dict.fromkeys(self.connections))
        self.engine = engine
        self.recheck = Recheck(engine)
        self._reactor = reactor

    def begin(self) -> None:
        self.recheck.begin(self.engine.pods.values())

    def turn(self) -> None:
        self._reactor.turn(0.0)

    def counts(self) -> set[int]:
        return {each.looked_at for each in self.connections}


def test_everyone_is_looked_at_once_some_each_turn() -> None:
    rig = Rig(2 * RECHECKS_PER_TURN_MAX + 1)
    rig.begin()
    rig.turn()
    assert sum(each.looked_at for each in rig.connections) == RECHECKS_PER_TURN_MAX
    for _ in range(5):
        rig.turn()
    assert rig.counts() == {1}


def test_a_change_in_each_turn_does_not_keep_it_from_the_last_connection() -> None:
    rig = Rig(3 * RECHECKS_PER_TURN_MAX)
    for _ in range(4):
        rig.begin()
        rig.turn()
    assert min(rig.counts()) >= 1


def test_who_was_looked_at_before_the_last_change_is_looked_at_again() -> None:
    rig = Rig(2 * RECHECKS_PER_TURN_MAX)
    rig.begin()
    rig.turn()
    rig.begin()
    for _ in range(8):
        rig.turn()
    assert rig.connections[0].looked_at == 2


def test_what_cannot_be_looked_at_does_not_stay_open() -> None:
    rig = Rig(3)
    rig.begin()
    rig.recheck.on_bug()
    assert {each.aborted for each in rig.connections} == {RelayEnd.POLICY}


POD = pod("p", "10.0.0.2")
SHUT = Policy("shut", "shop", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (Rule(),))
OPEN = replace(SHUT, rules=())
NAMES_IT = replace(POD, authorization_policies=(SHUT.key,))
GONE = Entry(Op.REMOVE_ADDRESS, POD.uid)
WHOLE = Entry(Op.SNAPSHOT)

# Changes after which the policies of POD refuse what they allowed, chunk by chunk. Wherever a chunk
# ends, and whatever was open before it.
WAYS = {
    "it names another policy": [[entry(SHUT), entry(NAMES_IT)]],
    "gone and back": [[GONE], [entry(SHUT)], [entry(NAMES_IT)]],
    "gone and back at once": [[entry(SHUT)], [GONE, entry(NAMES_IT)]],
    "gone and back after all is settled": [[GONE, WHOLE], [entry(SHUT), WHOLE], [entry(NAMES_IT)]],
    "its policy was another one meanwhile": [
        [entry(OPEN), entry(NAMES_IT), WHOLE],
        [GONE],
        [entry(SHUT)],
        [entry(NAMES_IT)],
    ],
    "back with another address": [
        [GONE, entry(SHUT)],
        [entry(replace(NAMES_IT, addresses=(at("10.0.0.9"),)))],
    ],
    "back with another uid": [[entry(SHUT)], [GONE], [entry(replace(NAMES_IT, uid="other"))]],
    "another one has its claim": [[entry(SHUT), entry(replace(NAMES_IT, uid="other"))], [GONE]],
    "another one is on this node": [
        [entry(SHUT), entry(replace(NAMES_IT, uid="zother", node="n2")), entry(POD)],
        [entry(replace(NAMES_IT, uid="zother", node="n1"))],
    ],
    "a new policy of the namespace": [[entry(replace(SHUT, scope=PolicyScope.NAMESPACE))]],
    "a policy that never comes": [[entry(NAMES_IT)], [WHOLE]],
    "its policy goes": [[entry(OPEN), entry(NAMES_IT)], [Entry(Op.REMOVE_POLICY, OPEN.key), WHOLE]],
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_a_refusal_leads_past_the_open_connections(way: str) -> None:
    rig = Rig(1, POD)
    pod_, state = rig.engine.pods["p"], rig.engine.state
    asked = permitted(rig)
    for chunk in WAYS[way]:
        rig.recheck.after(state.apply(chunk))
        for _ in range(3):
            rig.turn()
    assert not still_permitted(rig.engine, pod_.workload(state), asked)
    assert rig.connections[0].refused


def permitted(rig: Rig) -> PolicyConnection:
    asked = PolicyConnection(spiffe("x"), at("10.0.0.1"), at("10.0.0.2"), 80)
    assert still_permitted(rig.engine, rig.engine.pods["p"].workload(rig.engine.state), asked)
    for each in rig.connections:
        each.engine, each.asked = rig.engine, asked
    return asked


def test_other_pods_that_come_and_go_cost_nothing() -> None:
    rig = Rig(1, POD)
    for number in range(10):
        stranger = pod(f"s{number}", f"10.0.1.{number}")
        for chunk in ([entry(stranger)], [Entry(Op.REMOVE_ADDRESS, stranger.uid), WHOLE]):
            rig.recheck.after(rig.engine.state.apply(chunk))
            rig.turn()
    assert rig.counts() == {0}


def test_only_those_of_the_pods_that_changed_and_each_pod_that_did() -> None:
    rig = Rig(1)
    other = rig.engine.pods["q"] = Pod("q", "q", "shop", "q", -1)
    theirs = Connection()
    other.inbound[theirs] = None
    rig.recheck.begin([other])
    rig.begin()  # while the round for the other one is under way
    rig.turn()
    assert (rig.connections[0].looked_at, theirs.looked_at) == (0, 1)
    rig.turn()
    assert (rig.connections[0].looked_at, theirs.looked_at) == (1, 2)
