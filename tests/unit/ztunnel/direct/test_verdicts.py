"""Conditions for verdicts, the endpoints that the kernel draws from, and the end of both."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import Address, Endpoint, parse_block, parse_endpoint
from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.model.workload import (
    HBONE_PORT,
    ApplicationTunnel,
    BalancingMode,
    GatewayAddress,
    LoadBalancing,
    NamespacedHostname,
    NetworkMode,
    Port,
    Scope,
    Service,
    TunnelProtocol,
    WeightedWaypoint,
    Workload,
    WorkloadStatus,
)
from control.wire.direct import SLOTS_MAX, ShareSlot
from tests.support.engine.meshes import entry, key, mesh, pod, service
from ztunnel.direct.verdicts import Place, Share, local_share, verdict
from ztunnel.mesh.authorize import Admit, admit_connect
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.route import ToTunnel, route
from ztunnel.mesh.state import State
from ztunnel.supervisor.stale import makes_stale

T = TypeVar("T")
HERE = Place("n1", "cluster.local")
CLIENT = pod("client", "10.0.0.1", "fd00::1", node="n1")
WEB = {key("web"): ()}
SERVER = pod("server", "10.0.0.2", "fd00::2", node="n1", services=WEB)
GATE = GatewayAddress(NamespacedHostname("shop", "gate.shop.svc.cluster.local"), 15008)
SERVICE = service("web", "10.1.0.1", "fd01::1")
VIP = parse_endpoint("10.1.0.1:80")


@dataclass(frozen=True)
class Served:
    """A pod that this node's ztunnel serves."""

    workload_uid: str

    @property
    def uid(self) -> str:
        return "pod-" + self.workload_uid.rpartition("/")[2]

    def workload(self, state: State) -> Workload | None:
        return state.workload(self.workload_uid)


def ask(state: State, place: Place = HERE, port: int = 8080) -> bool:
    return verdict(state, place, Served(CLIENT.uid), Served(SERVER.uid), port)


def policy(match: Match, action: Action = Action.ALLOW, **fields: Any) -> Policy:
    base = Policy("p", "shop", PolicyScope.NAMESPACE, action, (Rule((Clause((match,)),)),))
    return replace(base, **fields)


def principal(text: str) -> Match:
    return Match(principals=(StringMatch(StringMatchKind.EXACT, text),))


# -- verdicts ----------------------------------------------------------------------------------


def test_two_pods_of_this_node_that_no_policy_keeps_apart() -> None:
    assert ask(mesh(CLIENT, SERVER, SERVICE))


@pytest.mark.parametrize(
    "server",
    [
        replace(SERVER, node="n2"),
        replace(SERVER, node=""),
        replace(SERVER, tunnel_protocol=TunnelProtocol.NONE),
        replace(SERVER, network_mode=NetworkMode.HOST_NETWORK),
        replace(SERVER, waypoint=GATE),
        replace(SERVER, native_tunnel=True),
        replace(SERVER, application_tunnel=ApplicationTunnel(proxy=False, port=9)),
        replace(SERVER, network="far"),
        replace(SERVER, trust_domain="elsewhere"),
        replace(SERVER, addresses=()),
        replace(SERVER, authorization_policies=("shop/not-here-yet",)),
    ],
)
def test_whatever_the_tunnel_would_do_otherwise_stays_in_the_tunnel(server: Workload) -> None:
    assert not ask(mesh(CLIENT, server))


@pytest.mark.parametrize(
    "client",
    [
        replace(CLIENT, node="n2"),
        replace(CLIENT, network="far"),
        replace(CLIENT, trust_domain="elsewhere"),
        replace(CLIENT, tunnel_protocol=TunnelProtocol.NONE),
        replace(CLIENT, addresses=()),
    ],
)
def test_a_client_that_is_not_surely_ours_stays_in_the_tunnel(client: Workload) -> None:
    assert not ask(mesh(client, SERVER))


def test_nothing_is_direct_before_the_first_snapshot() -> None:
    state = State()
    state.apply([entry(CLIENT), entry(SERVER)])
    assert not ask(state)


def test_without_a_name_no_node_is_ours() -> None:
    assert not ask(mesh(replace(CLIENT, node=""), replace(SERVER, node="")), Place("", "x"))


def test_a_pod_that_nobody_knows_is_not_direct() -> None:
    assert not ask(mesh(CLIENT))
    assert not ask(mesh(SERVER))


def test_a_pod_does_not_need_the_mesh_to_reach_itself() -> None:
    state = mesh(CLIENT)
    assert not verdict(state, HERE, Served(CLIENT.uid), Served(CLIENT.uid), 80)


def test_an_address_that_is_a_service_as_well_is_left_to_the_tunnel() -> None:
    assert not ask(mesh(CLIENT, SERVER, service("odd", "10.0.0.2")))


def test_an_address_that_another_workload_claims_is_left_to_the_tunnel() -> None:
    assert not ask(mesh(CLIENT, SERVER, pod("thief", "fd00::2", node="n2")))


@pytest.mark.parametrize("port", [15001, 15006, 15008])
def test_the_tunnels_own_ports_are_not_direct(port: int) -> None:
    assert not ask(mesh(CLIENT, SERVER), port=port)


STRICT = Policy(
    "strict",
    "shop",
    PolicyScope.NAMESPACE,
    Action.DENY,
    (
        Rule(
            (Clause((Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),)),)),),
        ),
    ),
)


def test_strict_keeps_out_only_those_without_an_identity() -> None:
    assert ask(mesh(CLIENT, SERVER, STRICT))


@pytest.mark.parametrize(
    ("made", "port", "expected"),
    [
        (policy(principal("cluster.local/ns/shop/sa/client")), 8080, True),
        (policy(principal("cluster.local/ns/shop/sa/other")), 8080, False),
        (policy(principal("cluster.local/ns/shop/sa/client"), Action.DENY), 8080, False),
        (policy(Match(destination_ports=(8080,))), 8080, True),
        (policy(Match(destination_ports=(8080,))), 80, False),
        # one family of the pair would be denied
        (policy(Match(source_ips=(parse_block("10.0.0.0/8"),))), 8080, False),
        (policy(Match(destination_ips=(parse_block("fd00::/8"),)), Action.DENY), 8080, False),
        (policy(Match(source_ips=(parse_block("10.0.0.1"), parse_block("fd00::1")))), 8080, True),
        (policy(Match(), dry_run=True), 8080, True),
        (policy(Match(), namespace="other"), 8080, True),
    ],
)
def test_the_destinations_policy_is_asked(made: Policy, port: int, expected: bool) -> None:
    assert ask(mesh(CLIENT, SERVER, made), port=port) is expected


def test_a_policy_that_was_refused_denies() -> None:
    state = mesh(CLIENT, SERVER)
    state.apply([Entry(Op.REJECTED_POLICY, "shop/broken", b"\xff")])
    assert not ask(state)


_BLOCKS = [
    parse_block(text) for text in ("10.0.0.0/8", "10.0.0.1", "10.0.0.2", "fd00::/8", "fd00::2")
]
_NAMES = [
    StringMatch(StringMatchKind.PRESENCE),
    StringMatch(StringMatchKind.EXACT, "cluster.local/ns/shop/sa/client"),
    StringMatch(StringMatchKind.SUFFIX, "other"),
]
_PORTS = [80, 8080]


def some(pick: random.Random, make: Callable[[], T]) -> tuple[T, ...]:
    """None, one or two of them."""
    return tuple(make() for _ in range(pick.randint(0, 2)))


def any_match(pick: random.Random) -> Match:
    names, blocks, ports = (
        partial(some, pick, partial(pick.choice, values)) for values in (_NAMES, _BLOCKS, _PORTS)
    )
    return Match(
        principals=names(),
        not_principals=names(),
        source_ips=blocks(),
        not_source_ips=blocks(),
        destination_ips=blocks(),
        not_destination_ips=blocks(),
        destination_ports=ports(),
    )


def any_policy(pick: random.Random) -> Policy:
    def clause() -> Clause:
        return Clause(some(pick, partial(any_match, pick)))

    def rule() -> Rule:
        return Rule(some(pick, clause))

    return Policy(
        name=pick.choice("abc"),
        namespace=pick.choice(("shop", "other")),
        scope=pick.choice((PolicyScope.NAMESPACE, PolicyScope.GLOBAL)),
        action=pick.choice(list(Action)),
        rules=some(pick, rule),
        dry_run=pick.random() < 0.5,
    )


# The seed is all that is drawn: drawing each part of a policy took longer than the test itself.
@settings(deadline=None, max_examples=150)
@given(st.randoms(use_true_random=True))
def test_a_verdict_is_what_the_tunnel_would_say_for_every_pair(pick: random.Random) -> None:
    policies = [any_policy(pick) for _ in range(pick.randint(0, 3))]
    port = pick.choice(_PORTS)
    client = replace(CLIENT, addresses=CLIENT.addresses[: pick.choice((1, 2))])
    server = replace(SERVER, addresses=SERVER.addresses[-pick.choice((1, 2)) :])
    state = mesh(client, server, *policies)

    def admitted(source: Address, address: Address) -> bool:
        target = Endpoint(address, port)
        decision = route(state, client, target, random.Random(0))
        assert isinstance(decision, ToTunnel)
        accepted = Endpoint(address, HBONE_PORT)
        answer = admit_connect(state, server, accepted, str(target), client.identity, source)
        return isinstance(answer, Admit)

    pairs = [
        pair
        for pair in itertools.product(client.addresses, server.addresses)
        if len(pair[0]) == len(pair[1])
    ]
    expected = bool(pairs) and all(admitted(*pair) for pair in pairs)
    assert ask(state, port=port) is expected, (policies, port, client.addresses, server.addresses)


# -- shares of services ------------------------------------------------------------------------


def near(number: int, *more: str, **fields: Any) -> Workload:
    return pod(f"near{number}", f"10.0.1.{number}", *more, node="n1", services=WEB, **fields)


def far(number: int, **fields: Any) -> Workload:
    return pod(f"far{number}", f"10.0.2.{number}", node="n2", services=WEB, **fields)


def share(*values: Workload | Service, asked: Endpoint = VIP, served: bool = True) -> Share | None:
    with_service = [each for each in values if isinstance(each, Service)] or [SERVICE]
    pods = [each for each in values if isinstance(each, Workload)]
    state = mesh(CLIENT, *with_service, *pods)
    found = state.service_at("", asked.address, "shop")
    assert found is not None
    return local_share(
        state, lambda each: Served(each.uid) if served else None, CLIENT, found, asked
    )


def slot(number: int, weight: int = 1, port: int = 8080) -> ShareSlot:
    return ShareSlot(weight, f"pod-near{number}", parse_endpoint(f"10.0.1.{number}:{port}"))


def test_those_here_have_their_chances_among_all() -> None:
    assert share(near(1), far(1), near(2), far(2)) == Share(4, (slot(1), slot(2)))


def test_capacity_is_the_weight() -> None:
    found = share(near(1, capacity=5), far(1, capacity=2), near(2, capacity=0))
    assert found == Share(7, (slot(1, 5),))


def test_nobody_here_is_nothing_to_draw_from() -> None:
    assert share(far(1)) is None


def test_an_unhealthy_pod_takes_no_part() -> None:
    sick = near(1, status=WorkloadStatus.UNHEALTHY)
    assert share(sick, near(2), far(1)) == Share(2, (slot(2),))


def test_locality_leaves_whom_it_leaves() -> None:
    balancing = LoadBalancing((Scope.NODE,), BalancingMode.FAILOVER)
    local = replace(SERVICE, load_balancing=balancing)
    assert share(local, near(1), far(1)) == Share(1, (slot(1),))


def test_a_named_port_leads_to_each_pods_own() -> None:
    named = replace(SERVICE, ports=(Port(80, 0),))
    own = replace(near(1), services={key("web"): (Port(80, 9090),)})
    assert share(named, own) == Share(1, (slot(1, port=9090),))


def test_a_pod_outside_the_mesh_is_part_of_the_rest() -> None:
    plain = near(2, tunnel_protocol=TunnelProtocol.NONE)
    assert share(near(1), plain) == Share(2, (slot(1),))


@pytest.mark.parametrize(
    "other",
    [
        replace(SERVICE, waypoint=GATE),
        replace(SERVICE, weighted_waypoints=(WeightedWaypoint(GATE, 1),)),
        replace(SERVICE, load_balancing=LoadBalancing(mode=BalancingMode.PASSTHROUGH)),
    ],
)
def test_a_service_with_a_way_of_its_own_is_not_offered(other: Service) -> None:
    assert share(other, near(1)) is None


def test_the_family_of_the_kernels_connection_cannot_change() -> None:
    assert share(near(1), asked=parse_endpoint("[fd01::1]:80")) is None
    both = share(near(1, "fd00::11"), asked=parse_endpoint("[fd01::1]:80"))
    assert both is not None
    assert str(both.slots[0].target) == "[fd00::11]:8080"


def test_a_pod_that_is_not_served_here_keeps_its_service_in_the_tunnel() -> None:
    assert share(near(1), far(1), served=False) is None


def test_more_pods_than_slots_are_not_offered() -> None:
    assert share(*(near(number) for number in range(1, SLOTS_MAX + 1))) is not None
    assert share(*(near(number) for number in range(1, SLOTS_MAX + 2))) is None


def test_chances_that_the_kernel_cannot_count_are_not_offered() -> None:
    assert share(near(1, capacity=1), far(1, capacity=2**32 - 1)) is None


def test_the_hints_halves_are_the_shares_halves() -> None:
    """The kernel draws from the same endpoints as the ztunnel does for LOCAL."""
    state = mesh(CLIENT, SERVICE, near(1), far(1), near(2, tunnel_protocol=TunnelProtocol.NONE))
    found = local_share(state, lambda each: Served(each.uid), CLIENT, SERVICE, VIP)
    assert found is not None
    rng = random.Random(1)
    for _ in range(20):
        decision = route(state, CLIENT, VIP, rng, Hint.LOCAL)
        assert isinstance(decision, ToTunnel)
        assert decision.target in {each.target for each in found.slots}


# -- stale verdicts ---------------------------------------------------------------------------

SERVED = {("shop", "server"), ("shop", "client")}


@pytest.mark.parametrize(
    ("change", "stale"),
    [
        (Entry(Op.POLICY, "shop/p"), True),
        (Entry(Op.REMOVE_POLICY, "shop/p"), True),
        (Entry(Op.REJECTED_POLICY, "shop/p"), True),
        (Entry(Op.ADDRESS, "Kubernetes//Pod/shop/server"), True),
        (Entry(Op.REMOVE_ADDRESS, "Kubernetes//Pod/shop/server"), True),
        (Entry(Op.ADDRESS, "other-cluster//Pod/shop/server"), True),
        (Entry(Op.ADDRESS, "K/networking.istio.io/WorkloadEntry/shop/server"), True),
        (Entry(Op.ADDRESS, "Kubernetes//Pod/other/server"), False),
        (Entry(Op.ADDRESS, "Kubernetes//Pod/shop/server-2"), False),
        (Entry(Op.REMOVE_ADDRESS, "Kubernetes//Pod/shop/far"), False),
        (Entry(Op.ADDRESS, "shop/web.shop.svc.cluster.local"), True),
        (Entry(Op.REMOVE_ADDRESS, "shop/web.shop.svc.cluster.local"), True),
        (Entry(Op.SNAPSHOT), False),
    ],
)
def test_what_may_change_a_verdict(change: Entry, stale: bool) -> None:
    harmless = Entry(Op.ADDRESS, "Kubernetes//Pod/shop/far")
    assert makes_stale([harmless, change], SERVED) is stale


def test_thousands_of_pods_elsewhere_change_nothing() -> None:
    batch = [Entry(Op.ADDRESS, f"Kubernetes//Pod/load/pod-{number}") for number in range(10_000)]
    assert not makes_stale(batch, SERVED)
