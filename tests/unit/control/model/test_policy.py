"""decide(): the conformance cases of layer-4 policy, by their numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import parse_address, parse_block
from control.model.identity import SpiffeId
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
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
    WouldDeny,
    decide,
    would_deny,
)

SOME = SpiffeId("td", "namespace", "account")
OTHER = SpiffeId("td-alt", "ns-alt", "sa=alt")
P = Connection(None, parse_address("127.0.0.1"), parse_address("127.0.0.2"), 8080)
T = replace(P, source=SOME)
A = Connection(OTHER, parse_address("127.0.0.3"), parse_address("127.0.0.4"), 9090)


def exact(text: str) -> tuple[StringMatch, ...]:
    return (StringMatch(StringMatchKind.EXACT, text),)


def rules(*matches: Match) -> tuple[Rule, ...]:
    return (Rule((Clause(matches),)),)


def allow(*given_rules: Rule, **attributes: object) -> Policy:
    policy = Policy("p", "ns", PolicyScope.NAMESPACE, Action.ALLOW, given_rules)
    return replace(policy, **attributes)  # type: ignore[arg-type]  # test shorthand


def deny(*given_rules: Rule, **attributes: object) -> Policy:
    return replace(allow(*given_rules, **attributes), action=Action.DENY)


def matched(match: Match, connection: Connection) -> str:
    return "y" if allow(*rules(match)).matching_rule(connection) is not None else "n"


@pytest.mark.parametrize(
    ("number", "given_rules", "expected"),
    [
        (1, rules(Match()), False),
        (2, (Rule((Clause(),)),), True),
        (3, (Rule(),), True),
        (4, (), False),
    ],
)
def test_empty_parts(number: int, given_rules: tuple[Rule, ...], expected: bool) -> None:
    assert (allow(*given_rules).matching_rule(P) is not None) is expected


ACCOUNT = (ServiceAccountMatch("namespace", "account"),)
PRINCIPAL = exact("td/ns/namespace/sa/account")
SOURCE, DESTINATION = (parse_block("127.0.0.1/32"),), (parse_block("127.0.0.2/32"),)


@pytest.mark.parametrize(
    ("number", "match", "expected"),
    [
        (5, Match(namespaces=exact("namespace")), "nyn"),
        (6, Match(not_namespaces=exact("namespace")), "yny"),
        (7, Match(service_accounts=ACCOUNT), "nyn"),
        (8, Match(not_service_accounts=ACCOUNT), "yny"),
        (9, Match(principals=PRINCIPAL), "nyn"),
        (10, Match(not_principals=PRINCIPAL), "yny"),
        (11, Match(source_ips=SOURCE), "yyn"),
        (12, Match(not_source_ips=SOURCE), "nny"),
        (13, Match(destination_ips=DESTINATION), "yyn"),
        (14, Match(not_destination_ips=DESTINATION), "nny"),
        (16, Match(destination_ports=(8080,)), "yyn"),
        (17, Match(not_destination_ports=(8080,)), "nny"),
    ],
)
def test_one_field(number: int, match: Match, expected: str) -> None:
    assert "".join(matched(match, each) for each in (P, T, A)) == expected


def named(namespace: str, port: int = 80) -> Connection:
    return replace(P, source=SpiffeId("td", namespace, "sa"), destination_port=port)


def test_18_clauses_are_joined_by_and_matches_by_or() -> None:
    either = Clause((Match(namespaces=exact("a")), Match(namespaces=exact("b"))))
    rule = Rule((either, Clause((Match(destination_ports=(80,)),))))
    assert [
        allow(rule).matching_rule(named(ns, port))
        for ns, port in [("a", 80), ("b", 80), ("a", 81), ("c", 80)]
    ] == [0, 0, None, None]


def test_22_rules_are_joined_by_or() -> None:
    policy = allow(*rules(Match(namespaces=exact("a"))), *rules(Match(namespaces=exact("b"))))
    assert [policy.matching_rule(named(ns)) for ns in ("a", "b", "bad")] == [0, 1, None]


@pytest.mark.parametrize(
    ("number", "kind", "value", "text", "expected"),
    [
        (23, StringMatchKind.EXACT, "foo", "foo", True),
        (23, StringMatchKind.EXACT, "foo", "not", False),
        (23, StringMatchKind.EXACT, "foo", "", False),
        (24, StringMatchKind.PREFIX, "foo", "foobar", True),
        (24, StringMatchKind.PREFIX, "foo", "notfoo", False),
        (24, StringMatchKind.PREFIX, "foo", "", False),
        (25, StringMatchKind.SUFFIX, "foo", "barfoo", True),
        (25, StringMatchKind.SUFFIX, "foo", "foonot", False),
        (25, StringMatchKind.SUFFIX, "foo", "", False),
        (26, StringMatchKind.PRESENCE, "", "foo", True),
        (26, StringMatchKind.PRESENCE, "", "", False),
    ],
)
def test_string_match(
    number: int, kind: StringMatchKind, value: str, text: str, expected: bool
) -> None:
    assert StringMatch(kind, value).matches(text) is expected


ALL = Rule()
FOR_SOME = rules(Match(principals=PRINCIPAL))


def test_27_deny_wins_over_allow() -> None:
    assert decide([allow(ALL), deny(ALL, name="no")], T) == Deny("ns/no")


def test_28_29_an_allow_accepts_whom_it_names_and_nobody_else() -> None:
    assert decide([allow(*FOR_SOME)], T) == Permit(T, "ns/p")
    assert decide([allow(*FOR_SOME)], A) == Deny(None)
    assert "none allowed" in str(Deny(None))


def test_30_a_denial_names_its_policy() -> None:
    verdict = decide([deny(*FOR_SOME, name="blocked")], T)
    assert str(verdict) == "policy rejection: explicitly denied by: ns/blocked"


def test_31_32_nothing_that_restricts_means_open() -> None:
    assert decide([], P) == Permit(P, None)
    assert decide([deny(*FOR_SOME)], A) == Permit(A, None)


def test_33_34_dry_run_is_told_but_not_enforced() -> None:
    dry_deny = deny(ALL, dry_run=True)
    assert decide([dry_deny], T) == Permit(T, None)
    assert would_deny([dry_deny], T) == WouldDeny("ns/p")
    dry_allow = allow(*FOR_SOME, dry_run=True)
    assert decide([dry_allow], A) == Permit(A, None)
    assert would_deny([dry_allow], A) == WouldDeny(None)
    assert would_deny([dry_allow], T) is None


MATCHES = st.sampled_from(
    [
        Match(
            namespaces=namespaces,
            not_principals=not_principals,
            source_ips=source_ips,
            destination_ports=ports,
        )
        for namespaces in ((), exact("namespace"), exact("ns-alt"))
        for not_principals in ((), PRINCIPAL)
        for source_ips in ((), SOURCE)
        for ports in ((), (8080,), (9090,))
    ]
)
RULES = st.builds(
    lambda clauses: Rule(tuple(Clause(tuple(each)) for each in clauses)),
    st.lists(st.lists(MATCHES, max_size=2), max_size=2),
)
POLICIES = st.builds(
    lambda given_rules, action: replace(allow(*given_rules), action=action),
    st.lists(RULES, max_size=2),
    st.sampled_from(Action),
)


@settings(max_examples=50)
@given(st.lists(POLICIES, max_size=4), st.lists(RULES, max_size=2), st.sampled_from([P, T, A]))
def test_one_more_deny_never_allows_more(
    policies: list[Policy], more: list[Rule], connection: Connection
) -> None:
    if isinstance(decide(policies, connection), Deny):
        assert isinstance(decide([*policies, deny(*more)], connection), Deny)


@given(st.permutations([allow(*FOR_SOME), deny(*rules(Match(destination_ports=(9090,)))), allow()]))
def test_the_order_of_policies_does_not_matter(policies: list[Policy]) -> None:
    assert [isinstance(decide(policies, each), Permit) for each in (P, T, A)] == [
        False,
        True,
        False,
    ]
