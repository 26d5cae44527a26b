"""The mesh as it is published now, as the leader's duties look at it; made once a change."""

from __future__ import annotations

from collections.abc import Mapping

from control.server.leader.conditions import Conditions, wanted_conditions
from control.server.leader.ledger import Target
from control.server.sources.problem import Problem
from control.server.xds.publish import Publisher


class Views:
    """`namespace` is that of the install."""

    def __init__(self, publisher: Publisher, namespace: str) -> None:
        self._publisher = publisher
        self._namespace = namespace
        self._made_of: tuple[int, tuple[Problem, ...]] | None = None
        self._conditions: Mapping[Target, Conditions] = {}
        self._namespaces: frozenset[str] = frozenset({namespace})

    def conditions(self) -> Mapping[Target, Conditions]:
        """Conditions of every policy."""
        self._look()
        return self._conditions

    def namespaces(self) -> frozenset[str]:
        """Those with pods of the mesh, or that ask for it, and our own."""
        self._look()
        return self._namespaces

    def _look(self) -> None:
        mesh, problems = self._publisher.mesh, self._publisher.problems
        made_of = self._made_of
        if made_of is not None and made_of[0] == mesh.revision and made_of[1] is problems:
            return
        self._made_of = (mesh.revision, problems)
        self._conditions = wanted_conditions(mesh, problems)
        enrolling = (name for name, each in mesh.namespaces.items() if each.enrols)
        self._namespaces = frozenset((self._namespace, *enrolling))
