"""Layers of policies: they answer as `decide()` of all the policies would."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from control.model.policy import (
    Action,
    Clause,
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
from tests.unit.ztunnel.mesh.policy_cases import some_call, some_policies
from ztunnel.mesh.in_force import UNMATCHED_MAX, InForce, PolicySet
from ztunnel.mesh.plaintext import ASK, RefusedPorts


def layer(held: list[Policy]) -> PolicySet:
    made = PolicySet()
    for each in held:
        made.put(each.key, each)
    return made


@given(seed=st.integers(0, 2**32))
def test_layers_answer_as_all_their_policies_do(seed: int) -> None:
    random = Random(seed)
    held = [some_policies(random, 5) for _ in range(random.randint(0, 3))]
    there = InForce(tuple(layer(each) for each in held))
    whole = list(chain.from_iterable(held))
    for _ in range(20):
        call = some_call(random)
        assert there.verdict(call) == decide(whole, call)
        assert there.would_deny(call) == would_deny(whole, call)


@given(seed=st.integers(0, 2**32))
def test_what_has_changed_counts_as_it_was(seed: int) -> None:
    random = Random(seed)
    held = [some_policies(random, 5) for _ in range(random.randint(0, 3))]
    was = some_policies(random, 5)
    changed = frozenset(each.key for each in was)
    there = InForce(tuple(layer(each) for each in held), (), changed, layer(was))
    whole = [each for found in held for each in found if each.key not in changed] + was
    for _ in range(20):
        call = some_call(random)
        assert there.verdict(call) == decide(whole, call)
        assert there.would_deny(call) == would_deny(whole, call)


def test_a_refusal_names_a_few_of_those_that_did_not_match() -> None:
    closed = [
        Policy(f"p{number}", "shop", PolicyScope.NAMESPACE, Action.ALLOW, ())
        for number in range(1000)
    ]
    verdict = InForce((layer(closed),)).verdict(some_call(Random(1)))
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
