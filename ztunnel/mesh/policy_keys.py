"""Keys of policy rules: combinations of values of which a connection has to have one. No I/O.

A `Part` is one fact of a connection, or a piece of it: the principal, its first nine letters, the
first 24 bits of the caller's address. A `Key` has a part and a value for each; a rule that matches
a connection has at least one key whose values the connection has. So who knows the keys of all
rules needs to look at few of them. A key promises no match: negations, and whatever made too many
combinations, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from control.model.address import CidrBlock
from control.model.policy import Clause, Connection, Match, Rule, StringMatch, StringMatchKind

# Combinations of a match, and of a rule's clauses. A longer list of values stays one key each.
KEYS_MAX: Final = 16

PRINCIPAL: Final = 0
ACCOUNT: Final = 1
NAMESPACE: Final = 2
PORT: Final = 3
SOURCE: Final = 4
DESTINATION: Final = 5

Value = str | int | tuple[str, str]
# The fact, how it is cut (0: not at all; n: the first n letters or bits; -n: the last n letters),
# and the size of an address in bits, or 0.
Part = tuple[int, int, int]
Key = tuple[tuple[Part, Value], ...]

_WHOLE: Final = 0
# Cuts are counted from one: a prefix of no letters is a cut, and not the whole.
_CUT_NOTHING: Final = 1


@dataclass(frozen=True, slots=True)
class CallFacts:
    """The facts of a connection, in the form in which keys have them. None: no identity."""

    principal: str | None
    account: tuple[str, str] | None
    namespace: str | None
    port: int
    source: bytes
    destination: bytes


def facts_of(connection: Connection) -> CallFacts:
    peer = connection.source
    return CallFacts(
        None if peer is None else peer.principal,
        None if peer is None else (peer.namespace, peer.service_account),
        None if peer is None else peer.namespace,
        connection.destination_port,
        connection.source_ip,
        connection.destination_ip,
    )


def value_of(facts: CallFacts, part: Part) -> Value | None:
    """The connection's value of this part; None if it has none, and no rule with it matches."""
    fact, cut, bits = part
    if fact == PORT:
        return facts.port
    if fact == ACCOUNT:
        return facts.account
    if fact >= SOURCE:
        address = facts.source if fact == SOURCE else facts.destination
        if 8 * len(address) != bits:
            return None
        return int.from_bytes(address, "big") >> (bits - cut)
    text = facts.principal if fact == PRINCIPAL else facts.namespace
    if text is None or cut == _WHOLE:
        return text
    letters = abs(cut) - _CUT_NOTHING
    if len(text) < letters:
        return None
    return text[:letters] if cut > 0 else text[len(text) - letters :]


def keys_of(rule: Rule) -> list[Key]:
    """Keys of a rule, none twice. The empty key is one that every connection has; a rule without
    keys matches nothing."""
    found: list[dict[Part, Value]] = [{}]
    for clause in rule.clauses:
        if not clause.matches_any:
            continue  # it always matches
        wanted = _keys_of_clause(clause)
        if not wanted:
            return []
        if _may_multiply(len(found), len(wanted)):
            both = (_joined(one, other) for one in found for other in wanted)
            found = [each for each in both if each is not None]
    return list(dict.fromkeys(tuple(sorted(each.items())) for each in found))


def _keys_of_clause(clause: Clause) -> list[dict[Part, Value]]:
    """One empty key if a match of the clause has none."""
    found: list[dict[Part, Value]] = []
    for match in clause.matches_any:
        if not match.is_empty:  # an empty one never matches
            found += _keys_of_match(match)
    return [{}] if {} in found else found


def _keys_of_match(match: Match) -> list[dict[Part, Value]]:
    found: list[dict[Part, Value]] = [{}]
    for values in _fields(match):
        if values and _may_multiply(len(found), len(values)):
            found = [{**one, part: value} for one in found for part, value in values]
    return found


def _may_multiply(one: int, other: int) -> bool:
    return one * other <= max(KEYS_MAX, one, other)


def _fields(match: Match) -> Iterator[list[tuple[Part, Value]]]:
    """Values of each field that asks for some; the most telling field first."""
    if match.principals:
        yield _texts(PRINCIPAL, match.principals)
    if match.service_accounts:
        accounts = [(each.namespace, each.service_account) for each in match.service_accounts]
        yield [((ACCOUNT, _WHOLE, 0), each) for each in accounts]
    if match.source_ips:
        yield _blocks(SOURCE, match.source_ips)
    if match.namespaces:
        yield _texts(NAMESPACE, match.namespaces)
    if match.destination_ports:
        yield [((PORT, _WHOLE, 0), port) for port in match.destination_ports]
    if match.destination_ips:
        yield _blocks(DESTINATION, match.destination_ips)


def _texts(fact: int, matches: Iterable[StringMatch]) -> list[tuple[Part, Value]]:
    found: list[tuple[Part, Value]] = []
    for each in matches:
        cut = len(each.value) + _CUT_NOTHING
        if each.kind is StringMatchKind.PRESENCE:
            return []  # whoever has an identity: tells too little
        if each.kind is StringMatchKind.EXACT:
            cut = _WHOLE
        elif each.kind is StringMatchKind.SUFFIX:
            cut = -cut
        found.append(((fact, cut, 0), each.value))
    return found


def _blocks(fact: int, blocks: Iterable[CidrBlock]) -> list[tuple[Part, Value]]:
    found: list[tuple[Part, Value]] = []
    for each in blocks:
        bits = 8 * len(each.address)
        shifted = int.from_bytes(each.address, "big") >> (bits - each.length)
        found.append(((fact, each.length, bits), shifted))
    return found


def _joined(one: dict[Part, Value], other: dict[Part, Value]) -> dict[Part, Value] | None:
    """Both at once; None where they ask for two values of one part, which no connection has."""
    for part, value in other.items():
        if one.get(part, value) != value:
            return None
    return {**one, **other}
