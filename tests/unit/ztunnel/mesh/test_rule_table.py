"""Rules by their keys: few candidates, however many rules there are."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from control.model.address import parse_address
from control.model.policy import (
    Action,
    Clause,
    Connection,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from tests.unit.ztunnel.mesh.policy_cases import IDENTITIES, some_call, some_policies
from ztunnel.mesh.policy_keys import facts_of
from ztunnel.mesh.rule_table import SETS_MAX, RuleTable

CALL = Connection(IDENTITIES[0], parse_address("10.0.0.1"), parse_address("10.0.0.2"), 80)


def policy(name: str, *matches: Match, action: Action = Action.ALLOW) -> Policy:
    rules = tuple(Rule((Clause((each,)),)) for each in matches)
    return Policy(name, "shop", PolicyScope.NAMESPACE, action, rules)


def principal(text: str, kind: StringMatchKind = StringMatchKind.EXACT) -> Match:
    return Match(principals=(StringMatch(kind, text),))


def found(table: RuleTable, connection: Connection = CALL) -> list[str]:
    return [each.owner.name for each in table.candidates(facts_of(connection))]


@given(seed=st.integers(0, 2**32))
def test_every_rule_that_matches_is_a_candidate_and_nothing_of_what_has_gone(seed: int) -> None:
    random = Random(seed)
    held = {each.key: each for each in some_policies(random, 8)}
    table = RuleTable()
    for name, each in held.items():
        table.put(name, each)
    for name in list(held)[: random.randint(0, 4)]:
        table.drop(name)
        del held[name]
    for _ in range(20):
        call = some_call(random)
        names = set(found(table, call))
        matching = {name for name, each in held.items() if each.matching_rule(call) is not None}
        assert matching <= names <= set(held)
    for name in held:
        table.drop(name)
    assert not table.allowing
    assert not table._by_parts, "nothing is left of what has gone"


def test_ten_thousand_rules_are_a_few_candidates() -> None:
    table = RuleTable()
    for number in range(1000):
        names = [principal(f"cluster.local/ns/a/sa/{number}-{each}") for each in range(10)]
        table.put(str(number), policy(str(number), *names, Match(destination_ports=(number + 81,))))
    assert found(table) == []
    table.put("mine", policy("mine", principal(IDENTITIES[0].principal)))
    assert found(table) == ["mine"]
    assert found(table, replace(CALL, destination_port=81)) == ["mine", "0"]


def test_sets_of_parts_are_bounded() -> None:
    """A prefix of each length is a set of its own: nobody may make a look-up of each."""
    table = RuleTable()
    text = IDENTITIES[0].principal + "x" * 200
    for length in range(200):
        match = principal(text[:length], StringMatchKind.PREFIX)
        table.put(str(length), policy(str(length), replace(match, destination_ports=(80,))))
    assert len(table._by_parts) <= SETS_MAX + 1
    expected = {str(each) for each in range(len(IDENTITIES[0].principal) + 1)}
    assert expected <= set(found(table))
    for length in range(200):
        table.drop(str(length))
    assert found(table) == []


def test_a_policy_of_the_same_name_takes_the_place() -> None:
    table = RuleTable()
    table.put("p", policy("p", Match(destination_ports=(80,))))
    assert list(table.allowing) == ["p"]
    table.put("p", policy("p", Match(destination_ports=(81,)), action=Action.DENY))
    assert not table.allowing
    assert found(table) == []
    assert len(table) == 1
