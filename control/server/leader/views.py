"""The mesh as it is published now, as the leader's duties look at it; made once a change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from control.server.compile.policies import PolicyStatus
from control.server.compile.rulebook import PolicyObject
from control.server.gateway.statuses import RouteStatus
from control.server.leader.conditions import Conditions, conditions_of
from control.server.leader.ledger import Target
from control.server.leader.route_statuses import ParentStates, wanted_states
from control.server.sources.objects import Key
from control.server.sources.problem import Problem
from control.server.xds.publish import Publisher

_Cause: TypeAlias = tuple[PolicyStatus, PolicyObject, Sequence[str], int]


class Views:
    """`namespace` is that of the install."""

    def __init__(self, publisher: Publisher, namespace: str) -> None:
        self._publisher = publisher
        self._namespace = namespace
        self._made_of: tuple[int, int, tuple[Problem, ...]] | None = None
        self._problems: tuple[Problem, ...] = ()
        self._broken: dict[str, list[str]] = {}  # messages by object
        self._made: dict[Key, tuple[_Cause, Target, Conditions]] = {}
        self._conditions: Mapping[Target, Conditions] = {}
        self._namespaces: frozenset[str] = frozenset({namespace})
        self._statuses: tuple[RouteStatus, ...] = ()
        self._routes_broken: Mapping[str, Sequence[str]] = self._broken
        self._routes: Mapping[Target, ParentStates] = {}

    def conditions(self) -> Mapping[Target, Conditions]:
        """Conditions of every policy."""
        self._look()
        return self._conditions

    def routes(self) -> Mapping[Target, ParentStates]:
        """States of every route at its parents."""
        self._look()
        statuses = self._publisher.gateways.statuses
        if statuses != self._statuses or self._routes_broken is not self._broken:
            self._statuses, self._routes_broken = statuses, self._broken
            self._routes = wanted_states(statuses, self._broken)
        return self._routes

    def namespaces(self) -> frozenset[str]:
        """Those with pods of the mesh, or that ask for it, and our own."""
        self._look()
        return self._namespaces

    def _look(self) -> None:
        mesh, problems = self._publisher.mesh, self._publisher.problems
        revisions = mesh.revision, self._publisher.gateways.revision
        made_of = self._made_of
        if made_of is not None and made_of[:2] == revisions and made_of[2] is problems:
            return
        self._made_of = (*revisions, problems)
        self._sort(problems)
        before, self._made = self._made, {}
        of_waypoints = self._publisher.gateways.policy_statuses
        for key, at_nodes in mesh.rulebook.statuses.items():
            status = of_waypoints.get(key, at_nodes)
            policy = mesh.rulebook.get(key)
            if policy is not None:  # it went, and the mesh is being brought up to date
                said = self._broken.get(str(key), ()) if self._broken else ()
                cause = (status, policy, said, mesh.rulebook.enrolled(key))
                known = before.get(key)
                self._made[key] = known if known and known[0] == cause else _made(key, cause)
        self._conditions = {target: each for _, target, each in self._made.values()}
        enrolling = (name for name, each in mesh.namespaces.items() if each.enrols)
        self._namespaces = frozenset((self._namespace, *enrolling))

    def _sort(self, problems: tuple[Problem, ...]) -> None:
        if problems is not self._problems:
            self._problems, self._broken = problems, {}
            for problem in problems:
                self._broken.setdefault(problem.object, []).append(problem.message)


def _made(key: Key, cause: _Cause) -> tuple[_Cause, Target, Conditions]:
    target = Target(key.kind, key.namespace, key.name, cause[1].meta.uid)
    return cause, target, conditions_of(*cause)
