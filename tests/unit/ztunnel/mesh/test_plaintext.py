"""Ports that are closed to plaintext: never one that `decide()` would open to anybody."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import Address, parse_address, parse_block
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Deny,
    Match,
    Policy,
    PolicyScope,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
    decide,
)
from ztunnel.mesh.plaintext import ASK, PORTS_MAX, RefusedPorts, closed_by, refused_ports, together

NOBODY = (StringMatch(StringMatchKind.PRESENCE),)
SOMEBODY = (StringMatch(StringMatchKind.EXACT, "cluster.local/ns/a/sa/b"),)


def deny(*matches: Match, action: Action = Action.DENY, dry_run: bool = False) -> Policy:
    rules = (Rule((Clause(matches),)),)
    return Policy("p", "shop", PolicyScope.WORKLOAD_SELECTOR, action, rules, dry_run)


STRICT = Match(not_principals=NOBODY)


@pytest.mark.parametrize(
    ("policies", "found"),
    [
        ([], ASK),
        ([deny(STRICT)], RefusedPorts(True)),
        # portLevelMtls: STRICT with a port open, PERMISSIVE with ports closed.
        (
            [deny(Match(not_principals=NOBODY, not_destination_ports=(9090,)))],
            RefusedPorts(True, (9090,)),
        ),
        (
            [deny(Match(not_principals=NOBODY, destination_ports=(80, 9090)))],
            RefusedPorts(False, (80, 9090)),
        ),
        # Two policies: what either closes is closed.
        (
            [
                deny(Match(not_principals=NOBODY, not_destination_ports=(80, 90))),
                deny(Match(not_principals=NOBODY, destination_ports=(90,))),
            ],
            RefusedPorts(True, (80,)),
        ),
        ([deny(STRICT, dry_run=True)], ASK),
        ([deny(STRICT, action=Action.ALLOW)], ASK),
        ([deny(Match(not_principals=SOMEBODY))], ASK),
        ([deny(Match(destination_ports=(80,)))], ASK),  # refused, logged with its reason
        ([deny(Match(not_principals=NOBODY, source_ips=(parse_block("10.0.0.0/8"),)))], ASK),
        ([Policy("p", "n", PolicyScope.GLOBAL, Action.DENY, (Rule(()),))], ASK),
        (
            [deny(*(Match(not_principals=NOBODY, destination_ports=(p,)) for p in range(1, 65)))],
            ASK,
        ),
    ],
)
def test_strict_closes_ports_and_nothing_else_does(
    policies: list[Policy], found: RefusedPorts
) -> None:
    assert refused_ports(map(closed_by, policies)) == found
    assert len(found.but) <= PORTS_MAX


PORTS = st.lists(st.sampled_from([80, 81, 90]), max_size=2, unique=True).map(tuple)
BLOCKS = st.lists(st.just(parse_block("10.0.0.0/8")), max_size=1).map(tuple)
TEXTS = st.sampled_from([(), NOBODY, SOMEBODY])
MATCHES = st.builds(
    Match,
    namespaces=st.just(()) | TEXTS,
    principals=st.just(()) | TEXTS,
    not_principals=TEXTS,
    not_service_accounts=st.sampled_from([(), (ServiceAccountMatch("a", "b"),)]),
    source_ips=st.just(()) | BLOCKS,
    not_source_ips=st.just(()) | BLOCKS,
    destination_ports=st.just(()) | PORTS,
    not_destination_ports=st.just(()) | PORTS,
)
CLAUSES = st.builds(Clause, st.lists(MATCHES, max_size=2).map(tuple))
RULES = st.builds(Rule, st.lists(CLAUSES, max_size=2).map(tuple))
POLICIES = st.lists(
    st.builds(
        Policy,
        st.just("p"),
        st.just("shop"),
        st.just(PolicyScope.GLOBAL),
        st.sampled_from(Action),
        st.lists(RULES, max_size=2).map(tuple),
        st.booleans(),
    ),
    max_size=3,
)
CALLERS = [parse_address(each) for each in ("10.1.2.3", "192.0.2.1", "fd00::7")]


@given(POLICIES, st.sampled_from([80, 81, 90, 443]), st.sampled_from(CALLERS))
def test_whom_the_kernel_refuses_the_ztunnel_would_refuse(
    policies: list[Policy], port: int, caller: Address
) -> None:
    if refused_ports(map(closed_by, policies)).at(port):
        connection = Connection(None, caller, parse_address("10.9.9.9"), port)
        assert isinstance(decide(policies, connection), Deny)


@given(POLICIES, st.sampled_from([80, 81, 90, 443]))
def test_policies_together_close_what_one_of_them_does(policies: list[Policy], port: int) -> None:
    each = [closed_by(policy) for policy in policies]
    assert together(each).at(port) is any(one.at(port) for one in each)


@pytest.mark.parametrize("number", [2_000, 20_000])
def test_a_policy_of_many_rules_and_ports_closes_none(number: int) -> None:
    """Ports times rules, on the supervisor's turn: the ztunnel refuses those itself."""
    rules = tuple(
        Rule((Clause((Match(not_principals=NOBODY, destination_ports=(port, 65535 - port)),)),))
        for port in range(1, number)
    )
    began_s = time.process_time()
    assert closed_by(Policy("p", "shop", PolicyScope.NAMESPACE, Action.DENY, rules)) == ASK
    assert time.process_time() - began_s < 1.0
