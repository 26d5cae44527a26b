"""Layers of policies: they answer as `decide()` of all the policies would."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain

from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.policy import (
    Action,
    Clause,
    Connection,
    Deny,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
    decide,
    would_deny,
)
from tests.unit.ztunnel.mesh.policy_cases import connections, policies
from ztunnel.mesh.in_force import UNMATCHED_MAX, InForce, PolicySet
from ztunnel.mesh.plaintext import ASK, RefusedPorts

layers = st.lists(st.lists(policies, max_size=5, unique_by=lambda each: each.key), max_size=3)


def layer(held: list[Policy]) -> PolicySet:
    made = PolicySet()
    for each in held:
        made.put(each.key, each)
    return made


@settings(max_examples=100)
@given(held=layers, call=connections)
def test_layers_answer_as_all_their_policies_do(held: list[list[Policy]], call: Connection) -> None:
    there = InForce(tuple(layer(each) for each in held))
    whole = list(chain.from_iterable(held))
    assert there.verdict(call) == decide(whole, call)
    assert there.would_deny(call) == would_deny(whole, call)


@settings(max_examples=100)
@given(held=layers, past=layers.map(lambda found: found[:1]), call=connections)
def test_what_has_changed_counts_as_it_was(
    held: list[list[Policy]], past: list[list[Policy]], call: Connection
) -> None:
    was = [each for found in past for each in found]
    changed = frozenset(each.key for each in was)
    there = InForce(tuple(layer(each) for each in held), (), changed, layer(was))
    whole = [each for found in held for each in found if each.key not in changed] + was
    assert there.verdict(call) == decide(whole, call)
    assert there.would_deny(call) == would_deny(whole, call)


@settings(max_examples=3)
@given(call=connections)
def test_a_refusal_names_a_few_of_those_that_did_not_match(call: Connection) -> None:
    closed = [
        Policy(f"p{number}", "shop", PolicyScope.NAMESPACE, Action.ALLOW, ())
        for number in range(1000)
    ]
    verdict = InForce((layer(closed),)).verdict(call)
    assert isinstance(verdict, Deny)
    assert verdict.unmatched == tuple(each.key for each in closed[:UNMATCHED_MAX])


def test_ports_that_are_closed_to_plaintext_follow_the_policies() -> None:
    nobody = (StringMatch(StringMatchKind.PRESENCE),)
    strict = Rule((Clause((Match(not_principals=nobody, not_destination_ports=(80,)),)),))
    closing = Policy("strict", "shop", PolicyScope.NAMESPACE, Action.DENY, (strict,))
    everywhere, here = layer([]), layer([closing])
    there = InForce((everywhere, here))
    assert there.refused_ports() == RefusedPorts(True, (80,))
    everywhere.put(
        closing.key, replace(closing, rules=(Rule((Clause((Match(not_principals=nobody),)),)),))
    )
    assert there.refused_ports() == RefusedPorts(True)
    everywhere.drop(closing.key)
    here.put(closing.key, replace(closing, action=Action.ALLOW))
    assert there.refused_ports() == ASK
    here.drop(closing.key)
    assert InForce((layer([closing]),), ("shop/missing",)).refused_ports() == ASK
