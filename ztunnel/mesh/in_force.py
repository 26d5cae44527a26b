"""Policies that apply to a workload: the whole mesh's, its namespace's, and those that it names,
in this order. No I/O.

`decide()` says yes or no. It is asked about the few rules that may match a connection, and not
about all: `asked()` leaves out rules that cannot.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final

from control.model.policy import (
    Action,
    Connection,
    Deny,
    Permit,
    Policy,
    WouldDeny,
    decide,
    would_deny,
)
from ztunnel.mesh.plaintext import ASK, RefusedPorts, closed_by, refused_ports, together
from ztunnel.mesh.policy_keys import facts_of
from ztunnel.mesh.rule_table import Candidate, RuleTable

# Names of ALLOW policies in the words of a refusal.
UNMATCHED_MAX: Final = 4


class PolicySet:
    """Policies of one layer, by name. Those of a dry run are kept apart: they refuse nothing."""

    __slots__ = ("_closed", "_closing", "by_name", "dry", "real")

    def __init__(self) -> None:
        self.by_name: dict[str, Policy] = {}
        self.real = RuleTable()
        self.dry = RuleTable()
        self._closed: RefusedPorts | None = None  # found when it is asked for
        self._closing: dict[str, RefusedPorts] = {}

    def __len__(self) -> int:
        return len(self.by_name)

    def put(self, name: str, policy: Policy) -> None:
        """Add a policy after all others; one of the same name goes."""
        self.drop(name)
        self._closed = None
        self.by_name[name] = policy
        (self.dry if policy.dry_run else self.real).put(name, policy)

    def drop(self, name: str) -> None:
        if self.by_name.pop(name, None) is not None:
            self.real.drop(name)
            self.dry.drop(name)
            self._closing.pop(name, None)
            self._closed = None

    def closed(self) -> RefusedPorts:
        """The ports that these policies close to plaintext."""
        if self._closed is None:
            for name, policy in self.by_name.items():
                if name not in self._closing:
                    self._closing[name] = closed_by(policy)
            self._closed = together(self._closing.values())
        return self._closed


class InForce:
    """The policies of some layers. `missing`: names that the workload gives and nobody has sent.
    `was`: policies as they were before a change; those `changed` do not count as they are."""

    __slots__ = ("changed", "layers", "missing", "was")

    def __init__(
        self,
        layers: tuple[PolicySet, ...],
        missing: tuple[str, ...] = (),
        changed: frozenset[str] = frozenset(),
        was: PolicySet | None = None,
    ) -> None:
        self.layers = layers
        self.missing = missing
        self.changed = changed
        self.was = was

    def refused_ports(self) -> RefusedPorts:
        """The ports at which the kernel may refuse plaintext by itself: none while a policy is
        missing."""
        return ASK if self.missing else refused_ports(each.closed() for each in self.layers)

    def verdict(self, connection: Connection) -> Permit | Deny:
        """As `decide()` says of all the policies."""
        tables = [each.real for each in self.layers]
        past = None if self.was is None else self.was.real
        found = decide(self._asked(tables, past, connection), connection)
        if isinstance(found, Deny) and found.policy is None:
            names = (each.key for each in self._allowing(tables, past))
            return replace(found, unmatched=tuple(islice(names, UNMATCHED_MAX)))
        return found

    def would_deny(self, connection: Connection) -> WouldDeny | None:
        """As `would_deny()` says of all the policies."""
        tables = [each.dry for each in self.layers if len(each.dry)]
        past = None if self.was is None else self.was.dry
        if not tables and not past:
            return None
        return would_deny(self._asked(tables, past, connection), connection)

    def _asked(
        self, tables: list[RuleTable], past: RuleTable | None, connection: Connection
    ) -> list[Policy]:
        """Rules that may match, and an ALLOW policy that does not if there are only such: where
        somebody allows something, whatever nobody allows is refused."""
        facts = facts_of(connection)
        asked: list[Policy] = []
        for table in tables:
            found = table.candidates(facts)
            if self.changed:
                found = [each for each in found if each.owner.name not in self.changed]
            asked += _in_order(found)
        if past is not None:
            asked += _in_order(past.candidates(facts))
        for each in asked:
            if each.action is Action.ALLOW:
                return asked
        unmatched = next(self._allowing(tables, past), None)
        if unmatched is not None:
            asked.append(replace(unmatched, rules=()))
        return asked

    def _allowing(self, tables: list[RuleTable], past: RuleTable | None) -> Iterator[Policy]:
        for table in tables:
            for name, policy in table.allowing.items():
                if name not in self.changed:
                    yield policy
        if past is not None:
            yield from past.allowing.values()


def _in_order(found: list[Candidate]) -> list[Policy]:
    if len(found) > 1:
        found.sort(key=_place)
    return [each.alone() for each in found]


def _place(candidate: Candidate) -> tuple[int, int]:
    return candidate.place
