"""Requests of inbound connections: the permits, and the answers to those that get none."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import Endpoint, parse_endpoint
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Deny,
    Match,
    Permit,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    NamespacedHostname,
    Port,
)
from tests.support.engine.meshes import at, entry, key, mesh, pod, service, spiffe, vip
from ztunnel.mesh.authorize import (
    Admit,
    NamedTarget,
    Refusal,
    admit_connect,
    admit_plaintext,
    parse_authority,
    recheck,
)
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.policies import AWAITED_MAX
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason

WEB = {key("web"): ()}
POD = pod("web", "10.0.0.2", "fd00::2", services=WEB)
SERVICE = service("web", "10.1.0.1")
PEER = at("10.0.0.1")
HOST = "web.shop.svc.cluster.local"


def only(*matches: Match, action: Action = Action.ALLOW) -> Policy:
    rules = (Rule((Clause(matches),)),)
    return Policy("p", "shop", PolicyScope.NAMESPACE, action, rules)


def principal(account: str) -> Match:
    text = f"cluster.local/ns/shop/sa/{account}"
    return Match(principals=(StringMatch(StringMatchKind.EXACT, text),))


def connect(
    state: State, authority: str, *, local: object = POD, accepted: str = "10.0.0.2:15008"
) -> Admit | Refusal:
    return admit_connect(
        state, local, parse_endpoint(accepted), authority, spiffe("client"), PEER  # type: ignore[arg-type]
    )  # fmt: skip


def refused(answer: Admit | Refusal) -> tuple[int, str]:
    assert isinstance(answer, Refusal), answer
    assert answer.detail
    return answer.status, answer.reason.word


def target(answer: Admit | Refusal) -> str:
    assert isinstance(answer, Admit), answer
    return str(answer.target)


def test_the_pods_own_address_is_admitted() -> None:
    answer = connect(mesh(POD, SERVICE), "10.0.0.2:8080")
    assert isinstance(answer, Admit)
    assert str(answer.target) == "10.0.0.2:8080"
    assert answer.permit.connection.source == spiffe("client")
    assert answer.permit.connection.source_ip == PEER
    assert answer.service == SERVICE  # found for the telemetry: it leads to this port
    assert target(connect(mesh(POD), "[fd00::2]:80", accepted="[fd00::2]:15008")) == "[fd00::2]:80"
    assert target(connect(mesh(POD), "[::ffff:10.0.0.2]:80")) == "10.0.0.2:80"


@pytest.mark.parametrize("authority", ["10.0.0.3:80", "[fd00::2]:80", "8.8.8.8:53", "127.0.0.1:80"])
def test_another_address_is_a_mismatch(authority: str) -> None:
    assert refused(connect(mesh(POD), authority)) == (400, "destination_mismatch")


@pytest.mark.parametrize(
    "authority",
    ["", ":", "10.0.0.2", "10.0.0.2:", "10.0.0.2:0", "10.0.0.2:65536", "10.0.0.2:8 0", "10.0.0:80",
     "[fd00::2:80", "fd00::2:80", "[10.0.0.2]:80", "10.0.0.2:٨٠", "a b:80", "http://10.0.0.2:80",
     "user@web:80", "web", "web:", "web:99999", "-web:80", "x" * 400 + ":80", "[fe80::1%eth0]:80"],
)  # fmt: skip
def test_an_authority_that_is_none(authority: str) -> None:
    assert refused(connect(mesh(POD, SERVICE), authority)) == (400, "bad_authority")


def test_a_hostname_is_translated_to_the_target_port() -> None:
    state = mesh(POD, SERVICE, only(Match(destination_ports=(8080,))))
    assert target(connect(state, f"{HOST}:80")) == "10.0.0.2:8080"
    assert target(connect(state, f"{HOST.upper()}:80")) == "10.0.0.2:8080"
    named = service("web", ports=[Port(80, 0)])
    own = replace(POD, services={key("web"): (Port(80, 9090),)})
    assert target(connect(mesh(own, named), f"{HOST}:80", local=own)) == "10.0.0.2:9090"


def test_a_hostname_that_leads_nowhere() -> None:
    state = mesh(POD, SERVICE, service("other", "10.1.0.2"))
    assert refused(connect(state, "nobody.shop:80")) == (503, "unknown_hostname")
    assert refused(connect(state, f"{HOST}:81")) == (503, "unknown_port")
    other = "other.shop.svc.cluster.local:80"
    assert refused(connect(state, other)) == (400, "destination_mismatch")


def test_the_policy_sees_the_target_port_and_never_the_service_port() -> None:
    by_service_port = mesh(POD, SERVICE, only(Match(destination_ports=(80,))))
    assert refused(connect(by_service_port, f"{HOST}:80")) == (401, "policy")


def test_a_denied_peer_gets_401_and_the_policy_is_named() -> None:
    state = mesh(POD, only(principal("client"), action=Action.DENY))
    answer = connect(state, "10.0.0.2:80")
    assert refused(answer) == (401, "policy")
    assert isinstance(answer, Refusal)
    assert "shop/p" in answer.detail
    assert refused(connect(mesh(POD, only(principal("other"))), "10.0.0.2:80")) == (401, "policy")


def test_plaintext_has_no_identity() -> None:
    accepted = parse_endpoint("10.0.0.2:80")
    answer = admit_plaintext(mesh(POD), POD, accepted, PEER)
    assert isinstance(answer, Admit)
    assert (answer.target, answer.permit.connection.source) == (accepted, None)
    strict = mesh(POD, only(principal("client")))
    assert refused(admit_plaintext(strict, POD, accepted, PEER)) == (401, "policy")
    anyone = Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),))
    deny = mesh(POD, only(anyone, action=Action.DENY))
    assert refused(admit_plaintext(deny, POD, accepted, PEER)) == (401, "policy")
    assert isinstance(connect(deny, "10.0.0.2:80"), Admit)


def test_the_tunnels_own_port_is_no_target() -> None:
    assert refused(connect(mesh(POD), "10.0.0.2:15008")) == (503, "recursion")
    accepted = Endpoint(at("10.0.0.2"), 15008)
    assert refused(admit_plaintext(mesh(POD), POD, accepted, PEER)) == (503, "recursion")


@pytest.mark.parametrize("port", [15001, 15006, 15080])
def test_ports_that_other_meshes_keep_are_an_apps_as_any(port: int) -> None:
    assert isinstance(connect(mesh(POD), f"10.0.0.2:{port}"), Admit)
    accepted = Endpoint(at("10.0.0.2"), port)
    assert isinstance(admit_plaintext(mesh(POD), POD, accepted, PEER), Admit)


def test_nothing_is_admitted_before_the_first_snapshot() -> None:
    state = State()
    state.apply([entry(POD)])
    assert refused(connect(state, "10.0.0.2:80")) == (503, "not_synced")
    plain = admit_plaintext(state, POD, parse_endpoint("10.0.0.2:80"), PEER)
    assert refused(plain) == (503, "not_synced")


GATE = pod("gate", "10.0.0.9", services={key("gate"): ()})
GATE_SERVICE = service("gate", "10.9.9.9")
WAYPOINT = GatewayAddress(NamespacedHostname("shop", "gate.shop.svc.cluster.local"), 15008)


@pytest.mark.parametrize("waypoint", [WAYPOINT, GatewayAddress(vip("10.9.9.9"), 15008),
                                      GatewayAddress(vip("10.0.0.9"), 15008)])  # fmt: skip
def test_a_waypoint_takes_what_is_meant_for_its_target(waypoint: GatewayAddress) -> None:
    state = mesh(GATE, GATE_SERVICE, replace(POD, waypoint=waypoint), SERVICE)
    at_gate = {"local": GATE, "accepted": "10.0.0.9:15008"}
    assert target(connect(state, "10.0.0.2:8080", **at_gate)) == "10.0.0.9:8080"  # type: ignore[arg-type]
    assert refused(connect(state, "10.1.0.1:80", **at_gate))[0] == 400  # type: ignore[arg-type]
    by_service = mesh(GATE, GATE_SERVICE, POD, replace(SERVICE, waypoint=waypoint))
    assert target(connect(by_service, "10.1.0.1:80", **at_gate)) == "10.0.0.9:80"  # type: ignore[arg-type]
    assert refused(connect(by_service, "10.0.0.2:8080", **at_gate))[0] == 400  # type: ignore[arg-type]


def test_application_tunnels() -> None:
    proxied = replace(POD, application_tunnel=ApplicationTunnel(True, 15088))
    answer = connect(mesh(proxied), "10.7.7.7:80", local=proxied)
    assert refused(answer) == (503, "application_tunnel_unsupported")
    moved = replace(POD, application_tunnel=ApplicationTunnel(False, 9000))
    assert target(connect(mesh(moved), "10.7.7.7:80", local=moved)) == "10.0.0.2:9000"


def test_an_open_connection_is_looked_at_again() -> None:
    state = mesh(POD)
    answer = connect(state, "10.0.0.2:80")
    assert isinstance(answer, Admit)
    assert isinstance(recheck(state, POD, answer.permit.connection), Permit)
    state.apply([entry(only(principal("client"), action=Action.DENY))])
    assert recheck(state, POD, answer.permit.connection) == Deny("shop/p")


NAMED = replace(POD, authorization_policies=("shop/p",))
NOBODY = replace(only(principal("client"), action=Action.DENY), scope=PolicyScope.WORKLOAD_SELECTOR)


def open_one() -> tuple[State, Connection]:
    """A state of which a new connection to POD was allowed."""
    state = mesh(POD)
    answer = connect(state, "10.0.0.2:80")
    assert isinstance(answer, Admit)
    return state, answer.permit.connection


def test_a_named_policy_that_nobody_has_sent_denies() -> None:
    state = mesh(NAMED)
    assert refused(connect(state, "10.0.0.2:80", local=NAMED)) == (401, "unknown_policy")
    answer = admit_plaintext(state, NAMED, parse_endpoint("10.0.0.2:80"), PEER)
    assert isinstance(answer, Refusal)
    assert answer.reason is Reason.UNKNOWN_POLICY
    assert "shop/p" in answer.detail
    state.apply([entry(replace(NOBODY, rules=())), Entry(Op.SNAPSHOT)])
    assert isinstance(connect(state, "10.0.0.2:80", local=NAMED), Admit)


@pytest.mark.parametrize("word", [[Op.SNAPSHOT], [Op.LATER, Op.LATER]])
def test_an_open_connection_waits_for_a_named_policy_for_a_time(word: list[Op]) -> None:
    state, connection = open_one()
    state.apply([entry(NAMED)])
    assert refused(connect(state, "10.0.0.2:80", local=NAMED)) == (401, "unknown_policy")
    assert isinstance(recheck(state, NAMED, connection), Permit)
    changed = [state.apply([Entry(op)]) for op in word]
    assert changed[-1].policies, "somebody has to look"
    assert recheck(state, NAMED, connection) == Deny("shop/p")


def test_one_that_came_meanwhile_is_waited_for_no_longer() -> None:
    state, connection = open_one()
    state.apply([entry(NAMED)])
    assert isinstance(recheck(state, NAMED, connection), Permit)
    state.apply([entry(replace(NOBODY, rules=()))])
    assert not state.apply([Entry(Op.SNAPSHOT)]).policies
    assert isinstance(recheck(state, NAMED, connection), Permit)


def test_a_policy_that_has_gone_is_obeyed_by_those_who_name_it_until_all_is_settled() -> None:
    allow = replace(only(principal("client")), scope=PolicyScope.WORKLOAD_SELECTOR)
    state = mesh(NAMED, allow)
    plain = parse_endpoint("10.0.0.2:80")
    state.apply([Entry(Op.REMOVE_POLICY, "shop/p")])
    assert isinstance(connect(state, "10.0.0.2:80", local=NAMED), Admit)
    assert refused(admit_plaintext(state, NAMED, plain, PEER)) == (401, "policy")
    assert state.apply([Entry(Op.SNAPSHOT)]).policies
    assert refused(connect(state, "10.0.0.2:80", local=NAMED)) == (401, "unknown_policy")


def test_what_was_refused_stays_so_until_the_update_is_whole() -> None:
    state = mesh(POD, only(principal("client"), action=Action.DENY))
    state.apply([Entry(Op.REMOVE_POLICY, "shop/p")])
    assert refused(connect(state, "10.0.0.2:80")) == (401, "policy")
    before = state.generation
    state.apply([Entry(Op.SNAPSHOT)])
    assert state.generation > before, "a no that somebody keeps is void"
    assert isinstance(connect(state, "10.0.0.2:80"), Admit)


def test_patience_is_bounded() -> None:
    state, connection = open_one()
    names = tuple(f"shop/{number}" for number in range(AWAITED_MAX + 1))
    many = replace(POD, authorization_policies=names)
    state.apply([entry(many)])
    assert isinstance(recheck(state, many, connection), Deny)


@given(st.text(max_size=40))
def test_any_text_is_an_authority_or_a_value_error(text: str) -> None:
    try:
        parsed = parse_authority(text)
    except ValueError:
        return
    assert isinstance(parsed, Endpoint | NamedTarget)
    assert 0 < parsed.port < 65536
