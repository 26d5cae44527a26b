"""Conditions for verdicts, the endpoints that the kernel draws from, and the end of both."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import Address, Endpoint, parse_block
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
    NetworkMode,
    TunnelProtocol,
    Workload,
)
from tests.support.engine.meshes import entry, mesh, pod, service
from tests.unit.ztunnel.direct.verdicts_rig import CLIENT, GATE, SERVICE, WEB, Served
from ztunnel.direct.verdicts import Place, verdict
from ztunnel.mesh.authorize import Admit, admit_connect
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.route import ToTunnel, route
from ztunnel.mesh.state import State

T = TypeVar("T")


HERE = Place("n1", "cluster.local")


SERVER = pod("server", "10.0.0.2", "fd00::2", node="n1", services=WEB)


def ask(state: State, place: Place = HERE, port: int = 8080) -> bool:
    return verdict(state, place, Served(CLIENT.uid), Served(SERVER.uid), port)


def policy(match: Match, action: Action = Action.ALLOW, **fields: Any) -> Policy:
    base = Policy("p", "shop", PolicyScope.NAMESPACE, action, (Rule((Clause((match,)),)),))
    return replace(base, **fields)


def principal(text: str) -> Match:
    return Match(principals=(StringMatch(StringMatchKind.EXACT, text),))


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


def test_the_tunnels_own_port_is_not_direct() -> None:
    assert not ask(mesh(CLIENT, SERVER), port=15008)
    assert ask(mesh(CLIENT, SERVER), port=15001)


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
