"""On demand a node decides as one that is told of everything, once it has what it asks for."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from control.model.address import Endpoint, parse_address
from control.model.workload import (
    GatewayAddress,
    NamespacedHostname,
    NetworkMode,
    OuterAddress,
    Port,
    Service,
    TunnelProtocol,
    Visibility,
    WeightedWaypoint,
    Workload,
)
from tests.support.engine.demand_rig import NODE, DemandRig, Value, told_all
from tests.support.engine.meshes import at, entry, key, pod, service, vip
from tests.support.virtual_time import run_virtual
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.names import missing, peer_name, rests_on
from ztunnel.mesh.route import Decision, Passthrough, Refuse, ToTunnel, Wait, route
from ztunnel.mesh.state import State

CLIENT = pod("client", "10.0.0.1", "fd00::1", node=NODE)
GATE = GatewayAddress(NamespacedHostname("shop", "gate.shop.svc.cluster.local"), 15008)
TARGETS = [
    *(f"10.0.0.{number}" for number in range(1, 9)),
    *(f"10.9.0.{number}" for number in range(1, 5)),
    *("fd00::1", "fd00::3", "203.0.113.1", "198.51.100.9", "192.0.2.1"),
]
ROUNDS_MAX = 3  # a destination, its waypoint, and nothing behind that


class Point(random.Random):
    """Draws always at one point, so that all choices can be gone through."""

    def __init__(self, point: int) -> None:
        super().__init__(0)
        self._point = point

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        assert stop is None
        assert step == 1
        return self._point % start

    def choices(self, population: Sequence[Any], *_: object, **__: object) -> list[Any]:
        return [population[self._point % len(population)]]


def decide(state: State, target: str, point: int = 0) -> Decision:
    return route(state, CLIENT, Endpoint(at(target), 80), Point(point))


def decisions(state: State, target: str) -> set[str]:
    """All that chance may come to, as text."""
    return {_text(decide(state, target, each)) for each in range(12)}


def _text(decision: Decision) -> str:
    """The services of a workload come in any order."""
    workload = getattr(decision, "workload", None)
    if isinstance(decision, Refuse | Wait) or workload is None:
        return repr(decision)
    bare = replace(workload, services={})
    return f"{sorted(workload.services.items())} {replace(decision, workload=bare)!r}"


def random_values(rng: random.Random) -> list[Value]:
    """A mesh around the client, some of it strange: waypoints, outer addresses, blocks, services
    and pods of one address. One address of two pods is nobody's: there the order decides."""
    names = rng.sample(("web", "db", "gate", "far"), rng.randint(1, 4))
    values: list[Value] = [CLIENT]
    values += [_service(rng, name) for name in names]
    for number in rng.sample(range(2, 9), rng.randint(0, 6)):
        services = {key(each): () for each in rng.sample(names, rng.randint(0, len(names)))}
        made = pod(f"p{number}", f"10.0.0.{number}", services=services)
        if number == 3:
            made = replace(made, addresses=(*made.addresses, parse_address("fd00::3")))
        values.append(_bent(rng, made))
    return values


def _bent(rng: random.Random, made: Workload) -> Workload:
    if rng.random() < 0.3:
        made = replace(made, node=NODE)
    if rng.random() < 0.2:
        made = replace(made, tunnel_protocol=TunnelProtocol.NONE)
    if rng.random() < 0.2:
        made = replace(made, waypoint=rng.choice((GATE, GatewayAddress(vip("10.9.0.3"), 15008))))
    number = int(made.name[1:])
    if number <= 4 and rng.random() < 0.3:
        made = replace(made, addresses=(*made.addresses, at(f"10.9.0.{number}")))
    elif rng.random() < 0.1:
        made = replace(made, network_mode=NetworkMode.HOST_NETWORK)
    return made


def _service(rng: random.Random, name: str) -> Service:
    number = {"web": 1, "db": 2, "gate": 3, "far": 4}[name]
    made = service(name, f"10.9.0.{number}", ports=(Port(80, 8080),))
    if name == "far":
        made = replace(made, addresses=(vip("198.51.100.0/24"),))
    if rng.random() < 0.2:
        outer = OuterAddress("", parse_address("203.0.113.1"), (80,))
        made = replace(made, outer_addresses=(outer,))
    if rng.random() < 0.2:
        made = replace(made, addresses=(*made.addresses, vip("10.9.0.1")))
    if rng.random() < 0.2:
        made = replace(made, visibility=Visibility.NAMESPACE, namespace="else")
    if name != "gate" and rng.random() < 0.3:
        made = replace(made, waypoint=GATE)
    elif name != "gate" and rng.random() < 0.2:
        made = replace(made, weighted_waypoints=(WeightedWaypoint(GATE, 1),))
    return made


async def decided(rig: DemandRig, target: str) -> set[str]:
    found: Decision | None = None
    for _ in range(ROUNDS_MAX):
        found = decide(rig.worker, target)
        if not isinstance(found, Wait):
            return decisions(rig.worker, target)
        await rig.want(*found.names)
    raise AssertionError(f"{target} still waits for {found}")


@pytest.mark.parametrize("seed", range(40))
def test_after_waiting_it_decides_as_a_node_that_is_told_of_everything(seed: int) -> None:
    rng = random.Random(seed)

    async def whole() -> None:
        values = random_values(rng)
        rig = DemandRig(*values)
        await rig.start()
        for _ in range(25):
            match rng.choice(("change", "reconnect", "give back", "look", "look", "look")):
                case "change":
                    values = random_values(rng)
                    await rig.change(*values)
                case "reconnect":
                    await rig.open()
                case "give back":
                    await give_back(rig, rng)
                case _:
                    pass
            everything = told_all(*values)
            for target in rng.sample(TARGETS, 3):
                assert await decided(rig, target) == decisions(everything, target), target
        held = set(rig.supervisor._workloads.raw) | set(rig.supervisor._services.raw)
        wanted = rig.cache.own(NODE).union(*map(rig.cache.resolve, rig.demand.book._names))
        assert held == wanted, "nothing stays that nothing leads to"

    run_virtual(whole())


async def give_back(rig: DemandRig, rng: random.Random) -> None:
    answered = sorted(each for each in rig.demand.book._names if rig.demand.book.answered(each))
    names = rng.sample(answered, rng.randint(0, len(answered)))
    await rig.demand._give_back(rig.demand.book._leave(names))
    await rig.settle()


def on_demand(*values: Value, known: tuple[str, ...] = ()) -> State:
    state = State(node=NODE)
    names = [Entry(Op.KNOWN, each) for each in known]
    state.apply([Entry(Op.ON_DEMAND), *map(entry, values), *names, Entry(Op.SNAPSHOT)])
    return state


def test_an_address_that_nobody_asked_for_waits_whatever_is_held() -> None:
    far = pod("far", "10.0.0.2", node="n2")
    state = on_demand(CLIENT, far)
    assert decide(state, "10.0.0.2") == Wait(("/10.0.0.2",))
    assert decide(state, "192.0.2.1") == Wait(("/192.0.2.1",))
    state.apply([Entry(Op.KNOWN, "/192.0.2.1"), Entry(Op.KNOWN, "/10.0.0.2")])
    assert isinstance(decide(state, "192.0.2.1"), Passthrough)
    assert isinstance(decide(state, "10.0.0.2"), ToTunnel)


def test_a_pod_of_this_node_needs_no_question() -> None:
    near = pod("near", "10.0.0.2", "fd00::2", node=NODE)
    state = on_demand(CLIENT, near)
    assert isinstance(decide(state, "fd00::2"), ToTunnel)
    assert not list(rests_on(state, CLIENT, Endpoint(at("10.0.0.2"), 80)))


def test_a_waypoint_is_asked_for_once_something_leads_to_it() -> None:
    web = service("web", "10.9.0.1", waypoint=GATE)
    state = on_demand(CLIENT, web, known=("/10.9.0.1",))
    assert decide(state, "10.9.0.1") == Wait((key("gate"),))
    state.apply([Entry(Op.KNOWN, key("gate"))])
    assert isinstance(decide(state, "10.9.0.1"), Refuse)


def test_where_everything_comes_unasked_nothing_is_missing() -> None:
    state = told_all(CLIENT)
    assert missing(state, CLIENT, Endpoint(at("192.0.2.1"), 80)) == ()
    assert peer_name(state, "", at("192.0.2.1")) is None


def test_a_peer_is_asked_for_once() -> None:
    state = on_demand(CLIENT, known=("/10.0.0.7",))
    assert peer_name(state, "", at("10.0.0.6")) == "/10.0.0.6"
    assert peer_name(state, "", at("10.0.0.7")) is None
    assert peer_name(state, "", at("10.0.0.1")) is None, "it is ours"
