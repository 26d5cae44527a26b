"""Lanes: facts that a pod's connections share, and when they are found anew."""

from __future__ import annotations

from dataclasses import replace

import pytest

from control.model.address import Endpoint, parse_address, parse_endpoint
from control.model.identity import SpiffeId
from control.model.workload import (
    NetworkAddress,
    Port,
    Service,
    TunnelProtocol,
    Workload,
)
from tests.support.engine.tunnel_mesh import address_entry, mesh_state
from ztunnel.connections.lanes import LANES_MAX, Lanes
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.dice import Dice
from ztunnel.mesh.route import Passthrough, Refuse, ToTunnel
from ztunnel.mesh.state import State

HTTP = (Port(80, 8080),)
WEB = Service(
    "web",
    "demo",
    "web.demo.svc.cluster.local",
    ports=HTTP,
    addresses=(NetworkAddress("", parse_address("10.96.0.1")),),
)
VIP = parse_endpoint("10.96.0.1:80")


def pod(name: str, address: str, *, node: str = "a", web: bool = False) -> Workload:
    return Workload(
        uid=name,
        name=name,
        namespace="demo",
        service_account=name,
        addresses=(parse_address(address),),
        tunnel_protocol=TunnelProtocol.HBONE,
        node=node,
        services={WEB.key: HTTP} if web else {},
    )


CLIENT = pod("client", "10.0.0.1")
ONE = pod("one", "10.0.0.2", web=True)
OTHER = pod("other", "10.0.0.3", node="b", web=True)


class Rig:
    def __init__(self, state: State) -> None:
        self.state = state
        self.lanes = Lanes("client")
        self.dice = Dice(1)

    def find(self, destination: Endpoint, hint: Hint = Hint.NONE) -> object:
        return self.lanes.find(self.state, CLIENT, destination, hint, self.dice)


def test_a_decision_without_chance_is_made_once() -> None:
    rig = Rig(mesh_state(CLIENT, ONE, WEB))
    lane = rig.lanes.find(rig.state, CLIENT, VIP, Hint.NONE, rig.dice)
    assert isinstance(lane.decision, ToTunnel)
    assert (lane.decision.authority, lane.host) == ("10.0.0.2:8080", f";host={WEB.hostname}")
    assert lane.key is not None
    assert lane.key.expected == (ONE.identity,)
    assert [rig.find(VIP) for _ in range(3)] == [lane] * 3


def test_chance_has_its_part_each_time() -> None:
    """The lanes are the same ones, the choice among them is not."""
    rig = Rig(mesh_state(CLIENT, ONE, OTHER, WEB))
    found = [rig.find(VIP) for _ in range(100)]
    assert len(set(found)) == 2
    assert 20 < found.count(found[0]) < 80


def test_the_kernels_draw_is_not_taken_for_ours() -> None:
    rig = Rig(mesh_state(CLIENT, ONE, OTHER, WEB))
    for _ in range(5):
        for hint, address in ((Hint.LOCAL, "10.0.0.2"), (Hint.ELSEWHERE, "10.0.0.3")):
            lane = rig.lanes.find(rig.state, CLIENT, VIP, hint, rig.dice)
            assert isinstance(lane.decision, ToTunnel)
            assert lane.decision.authority == f"{address}:8080"
    assert len({rig.find(VIP) for _ in range(100)}) == 2


def test_another_state_is_asked_anew() -> None:
    rig = Rig(mesh_state(CLIENT, ONE, WEB))
    target = parse_endpoint("10.0.0.2:80")
    before = rig.lanes.find(rig.state, CLIENT, target, Hint.NONE, rig.dice)
    rig.state.apply([address_entry(replace(ONE, service_account="renamed"))])
    after = rig.lanes.find(rig.state, CLIENT, target, Hint.NONE, rig.dice)
    assert isinstance(before.decision, ToTunnel)
    assert isinstance(after.decision, ToTunnel)
    assert before.decision.expected != after.decision.expected
    assert after.key != before.key


@pytest.mark.parametrize(
    ("destination", "kind"), [("192.0.2.1:443", Passthrough), ("10.0.0.1:15008", Refuse)]
)
def test_what_needs_no_tunnel_is_remembered_too(destination: str, kind: type[object]) -> None:
    rig = Rig(mesh_state(CLIENT, ONE))
    lane = rig.lanes.find(rig.state, CLIENT, parse_endpoint(destination), Hint.NONE, rig.dice)
    assert isinstance(lane.decision, kind)
    assert lane.key is None
    assert rig.find(parse_endpoint(destination)) is lane


def test_a_caller_that_tries_every_port_does_not_fill_the_memory() -> None:
    rig = Rig(mesh_state(CLIENT, ONE))
    for port in range(1, 3 * LANES_MAX):
        rig.find(Endpoint(ONE.addresses[0], port))
    assert len(rig.lanes) <= 2 * LANES_MAX


def test_connections_to_another_identity_are_counted_apart() -> None:
    rig = Rig(mesh_state(CLIENT, ONE))
    target = parse_endpoint("10.0.0.2:80")
    lane = rig.lanes.find(rig.state, CLIENT, target, Hint.NONE, rig.dice)
    one, same, other = (SpiffeId("cluster.local", "demo", name) for name in ("a", "a", "b"))
    memo = lane.memo(one)
    assert lane.memo(same) is memo
    assert lane.memo(other) is not memo


def test_dice_know_that_they_were_rolled() -> None:
    dice = Dice(1)
    assert dice.rolls == 0
    dice.choices([1, 2], [1, 2])
    after = dice.rolls
    assert after > 0
    dice.randrange(5)
    assert dice.rolls > after
