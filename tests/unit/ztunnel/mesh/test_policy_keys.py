"""Keys of rules: whoever matches a rule has one of them."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import parse_address, parse_block
from control.model.policy import (
    Clause,
    Connection,
    Match,
    Rule,
    ServiceAccountMatch,
    StringMatch,
    StringMatchKind,
)
from tests.unit.ztunnel.mesh.policy_cases import IDENTITIES, some_call, some_rule
from ztunnel.mesh.policy_keys import KEYS_MAX, Key, facts_of, keys_of, value_of

EXACT, PREFIX, SUFFIX, PRESENCE = StringMatchKind
ALICE = IDENTITIES[0]
CALL = Connection(ALICE, parse_address("10.0.0.1"), parse_address("10.0.0.2"), 80)


def strings(kind: StringMatchKind, *values: str) -> tuple[StringMatch, ...]:
    return tuple(StringMatch(kind, each) for each in values)


def of(*clauses: tuple[Match, ...]) -> list[Key]:
    return keys_of(Rule(tuple(Clause(each) for each in clauses)))


def has(connection: Connection, key: Key) -> bool:
    facts = facts_of(connection)
    return all(value_of(facts, part) == value for part, value in key)


@given(seed=st.integers(0, 2**32))
def test_who_matches_a_rule_has_one_of_its_keys(seed: int) -> None:
    random = Random(seed)
    for _ in range(20):
        rule, call = some_rule(random), some_call(random)
        if rule.matches(call):
            assert any(has(call, key) for key in keys_of(rule)), (rule, call)


@pytest.mark.parametrize(
    "match",
    [
        Match(principals=strings(EXACT, ALICE.principal)),
        Match(principals=strings(PREFIX, "cluster.local/ns/a/")),
        Match(principals=strings(SUFFIX, "/sa/x")),
        Match(namespaces=strings(EXACT, "a")),
        Match(service_accounts=(ServiceAccountMatch("a", "x"),)),
        Match(source_ips=(parse_block("10.0.0.0/24"),)),
        Match(destination_ips=(parse_block("10.0.0.2"),)),
        Match(destination_ports=(80,)),
    ],
    ids=str,
)
def test_each_field_is_a_key(match: Match) -> None:
    """A field that is left out of the keys costs a look at each rule that has it."""
    (key,) = of((match,))
    assert len(key) == 1
    assert has(CALL, key)
    stranger = Connection(IDENTITIES[-1], parse_address("::1"), parse_address("::2"), 81)
    assert not has(stranger, key)
    assert not has(Connection(None, b"\0" * 4, b"\0" * 4, 0), key)  # type: ignore[arg-type]


def test_fields_and_clauses_go_together() -> None:
    account = Match(service_accounts=(ServiceAccountMatch("a", "x"),))
    (key,) = of((account,), (Match(destination_ports=(80,)),))
    assert len(key) == 2
    both = Match(namespaces=strings(EXACT, "a", "b"), destination_ports=(80, 81))
    assert len(of((both,))) == 4


def test_what_tells_nothing_is_the_empty_key() -> None:
    assert of() == of(()) == [()]
    assert of((Match(not_principals=strings(PRESENCE, "")),)) == [()]
    assert of((Match(principals=strings(PRESENCE, "")),)) == [()]
    one, any_other = Match(destination_ports=(80,)), Match(not_destination_ports=(1,))
    assert of((one, any_other)) == [()]


def test_what_never_matches_has_no_key() -> None:
    assert of((Match(),)) == []
    assert of((Match(destination_ports=(80,)),), (Match(),)) == []
    assert of((Match(destination_ports=(80,)),), (Match(destination_ports=(81,)),)) == []


def test_long_lists_do_not_multiply() -> None:
    names = strings(EXACT, *(f"cluster.local/ns/a/sa/{number}" for number in range(1000)))
    many = Match(principals=names, destination_ports=tuple(range(1, 1001)))
    assert len(of((many,))) == 1000
    assert len(of((Match(principals=names),), (Match(destination_ports=(80,)),))) == 1000
    few = Match(principals=names[:8], destination_ports=tuple(range(1, 9)))
    assert len(of((few,))) <= KEYS_MAX
