"""AuthorizationPolicies in force, and which of them a pod has to keep to. Pure."""

from __future__ import annotations

from control.server.compile.policies import (
    Compiled,
    PolicyChanges,
    compile_authorization_policy,
)
from control.server.compile.population import Population
from control.server.compile.selectors import Selectors
from control.server.compile.settings import Settings
from control.server.sources.objects import AuthorizationPolicy, Key, Labels


class Authorizations:
    """All AuthorizationPolicies."""

    def __init__(self, settings: Settings, population: Population) -> None:
        self.selecting: Selectors[AuthorizationPolicy] = Selectors(population)
        self._settings = settings
        self._population = population
        self._found: dict[Key, tuple[AuthorizationPolicy, Compiled]] = {}
        self._names: dict[Key, str] = {}  # each workload has the same ones
        self._changes = PolicyChanges()

    def put(self, key: Key, value: AuthorizationPolicy | None) -> None:
        before = self._found.pop(key, None)
        after: tuple[AuthorizationPolicy, Compiled] | None = None
        if value is not None:
            after = self._found[key] = value, compile_authorization_policy(value, self._settings)
        name = self._names.pop(key, None) or f"{key.namespace}/{key.name}"
        if after is not None:
            self._names[key] = name
        self._changes.policies[name] = after and after[1].policy
        self._changes.statuses[key] = after and after[1].status
        was, now = map(_selector_of, (before, after))
        space = "" if key.namespace == self._settings.root_namespace else key.namespace
        if value is not None and now:
            self.selecting.put(key, value, space)
        else:
            self.selecting.drop(key)
        if was != now:
            for each in filter(None, (was, now)):
                self._changes.pods.append(self._population.selected(each, space))

    def settle(self) -> PolicyChanges:
        changes, self._changes = self._changes, PolicyChanges()
        return changes

    def policies_of(self, namespace: str, labels: Labels) -> list[str]:
        """Names of those that select pods with these labels."""
        return [self._names[key] for key, _ in self.selecting.of(namespace, labels)]


def _selector_of(found: tuple[AuthorizationPolicy, Compiled] | None) -> Labels | None:
    """None for one that no pod has to name: it is for a whole namespace, or for no node."""
    return None if found is None or found[1].policy is None else found[0].selector or None
