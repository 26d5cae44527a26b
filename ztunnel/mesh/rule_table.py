"""Rules of many policies, found by the keys that a connection has. No I/O.

Keys of the same parts are in one dictionary, so a question costs one look-up for each set of parts,
and not one for each rule. Policies come and go one by one.
"""

from __future__ import annotations

from typing import Final

from control.model.policy import Action, Policy
from ztunnel.mesh.policy_keys import CallFacts, Key, Part, Value, keys_of, value_of

# Sets of parts of one table; beyond, a rule is found by one of its parts, or is always looked at.
SETS_MAX: Final = 32

Parts = tuple[Part, ...]
Values = tuple[Value, ...]


class RuleOwner:
    """A policy and its place among the others of the table."""

    __slots__ = ("name", "place", "policy")

    def __init__(self, name: str, place: int, policy: Policy) -> None:
        self.name = name
        self.place = place
        self.policy = policy


class Candidate:
    """A rule, by its place in its policy."""

    __slots__ = ("index", "owner")

    def __init__(self, owner: RuleOwner, index: int) -> None:
        self.owner = owner
        self.index = index

    @property
    def place(self) -> tuple[int, int]:
        return self.owner.place, self.index

    def alone(self) -> Policy:
        """The policy as if it had this rule alone."""
        policy = self.owner.policy
        rule = policy.rules[self.index]
        return Policy(
            policy.name, policy.namespace, policy.scope, policy.action, (rule,), policy.dry_run
        )


# Most keys belong to one rule: a list for each would be most of the table's memory.
Bucket = Candidate | list[Candidate]


class RuleTable:
    """Policies by name, and which of them allow."""

    def __init__(self) -> None:
        self.allowing: dict[str, Policy] = {}
        self._owners: dict[str, RuleOwner] = {}
        self._by_parts: dict[Parts, dict[Values, Bucket]] = {}
        self._next = 0

    def __len__(self) -> int:
        return len(self._owners)

    def put(self, name: str, policy: Policy) -> None:
        """Add a policy after all others; one of the same name goes."""
        self.drop(name)
        self._next += 1
        owner = self._owners[name] = RuleOwner(name, self._next, policy)
        for index, rule in enumerate(policy.rules):
            candidate = Candidate(owner, index)
            for key in keys_of(rule):
                self._add(key, candidate)
        if policy.action is Action.ALLOW:
            self.allowing[name] = policy

    def drop(self, name: str) -> None:
        owner = self._owners.pop(name, None)
        if owner is None:
            return
        self.allowing.pop(name, None)
        for key in dict.fromkeys(key for rule in owner.policy.rules for key in keys_of(rule)):
            self._remove(key, owner)

    def candidates(self, facts: CallFacts) -> list[Candidate]:
        """Every rule that matches the connection is among these, in any order; one may be there
        twice."""
        found: list[Candidate] = []
        for parts, buckets in self._by_parts.items():
            values = _values_of(facts, parts)
            if values is not None:
                here = buckets.get(values)
                if isinstance(here, Candidate):
                    found.append(here)
                elif here is not None:
                    found += here
        return found

    def _add(self, key: Key, candidate: Candidate) -> None:
        parts, values = _parted(key)
        if parts not in self._by_parts and len(self._by_parts) >= SETS_MAX:
            parts, values = self._coarser(key)
        buckets = self._by_parts.setdefault(parts, {})
        here = buckets.get(values)
        if here is None:
            buckets[values] = candidate
        elif isinstance(here, Candidate):
            buckets[values] = [here, candidate]
        else:
            here.append(candidate)

    def _coarser(self, key: Key) -> tuple[Parts, Values]:
        for part, value in key:
            if (part,) in self._by_parts:
                return (part,), (value,)
        return (), ()

    def _remove(self, key: Key, owner: RuleOwner) -> None:
        """Remove the owner's rules from wherever a rule with this key can be."""
        for some in (key, *((each,) for each in key), ()):
            parts, values = _parted(some)
            buckets = self._by_parts.get(parts, {})
            here = buckets.get(values)
            if here is None:
                continue
            rules = [here] if isinstance(here, Candidate) else here
            kept = [each for each in rules if each.owner is not owner]
            if kept:
                buckets[values] = kept[0] if len(kept) == 1 else kept
                continue
            del buckets[values]
            if not buckets:
                del self._by_parts[parts]


def _parted(key: Key) -> tuple[Parts, Values]:
    return tuple([part for part, _ in key]), tuple([value for _, value in key])


def _values_of(facts: CallFacts, parts: Parts) -> Values | None:
    found: list[Value] = []
    for part in parts:
        value = value_of(facts, part)
        if value is None:
            return None
        found.append(value)
    return tuple(found)
