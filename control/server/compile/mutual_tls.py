"""PeerAuthentication objects → DENY policies: "STRICT" denies every caller without a principal.

One static policy says STRICT for a whole workload; workloads name it. A workload-level object with
port exceptions becomes a policy of its own, which replaces the static one where ports are opened
and joins nothing where they are closed. DISABLE counts as PERMISSIVE everywhere, also for a port
under an inherited STRICT (Istio overlooks that one case; we treat both alike).
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.server.compile.policies import PolicyChanges, PolicyStatus
from control.server.compile.population import Population
from control.server.compile.selectors import Selectors
from control.server.compile.settings import Settings
from control.server.sources.objects import Key, Labels, MtlsMode, PeerAuthentication

STATIC_STRICT = "istio_converted_static_strict"
CONVERTED_PREFIX = "converted_peer_authentication_"

_NOBODY = (StringMatch(StringMatchKind.PRESENCE),)  # as not_principals: no identity at all


@dataclass(frozen=True, slots=True)
class _Space:
    """One namespace, resolved. `own`: the one in force for all of it."""

    own: PeerAuthentication | None = None
    policies: Mapping[str, Policy] = field(default_factory=dict)
    statuses: Mapping[Key, PolicyStatus] = field(default_factory=dict)


_BLANK = _Space()


class MutualTls:
    """All PeerAuthentications. `policies_of` is asked for each workload."""

    def __init__(self, settings: Settings, population: Population) -> None:
        self._root = settings.root_namespace
        self._static_key = f"{self._root}/{STATIC_STRICT}"
        self._population = population
        self._found: dict[str, dict[Key, PeerAuthentication]] = {}  # by namespace
        self.selecting: Selectors[PeerAuthentication] = Selectors(population)
        self._spaces: dict[str, _Space] = {}
        self._stale: dict[str, list[PeerAuthentication]] = {}  # namespaces, with what changed

    def put(self, key: Key, value: PeerAuthentication | None) -> None:
        found = self._found.setdefault(key.namespace, {})
        before = found.pop(key, None)
        if value is not None:
            found[key] = value
        elif not found:
            del self._found[key.namespace]
        changed = self._stale.setdefault(key.namespace, [])
        changed += [each for each in (before, value) if each is not None]
        if value is not None and self._is_selecting(value):
            self.selecting.put(key, value, key.namespace)
        else:
            self.selecting.drop(key)

    def _is_selecting(self, value: PeerAuthentication) -> bool:
        may = bool(value.selector) or value.may_select
        return may and value.meta.namespace != self._root

    def settle(self) -> Generator[None, None, PolicyChanges]:
        """One namespace a step: the mesh's own mode may be that of all."""
        changes = PolicyChanges()
        stale, self._stale = self._stale, {}
        if not stale:
            return changes
        was_strict = self._mesh_is_strict
        strict = {space: self.is_strict(space) for space in stale}
        if self._root in stale:
            self._settle(self._root, changes)
        if self._mesh_is_strict != was_strict:
            for space in (*self._population.namespaces(), *self._found):
                own = self._spaces.get(space, _BLANK).own
                if own is None or own.mode is MtlsMode.UNSET:
                    stale.setdefault(space, [])
                    strict.setdefault(space, was_strict)
                yield
        for namespace, changed in stale.items():
            if namespace != self._root:
                self._settle(namespace, changes)
            if self.is_strict(namespace) != strict[namespace]:
                changes.pods.append(self._population.of(namespace))
            for each in changed if namespace != self._root else ():
                if self._is_selecting(each):
                    changes.pods.append(self._population.selected(each.selector, namespace))
            yield
        static = _static(self._root) if self._found else None
        changes.policies[self._static_key] = static
        return changes

    def _settle(self, namespace: str, changes: PolicyChanges) -> None:
        before = self._spaces.pop(namespace, _BLANK)
        after = self._resolve(namespace)
        if after.statuses:
            self._spaces[namespace] = after
        changes.policies.update({each: after.policies.get(each) for each in before.policies})
        changes.policies.update(after.policies)
        changes.statuses.update({each: after.statuses.get(each) for each in before.statuses})
        changes.statuses.update(after.statuses)

    def _resolve(self, namespace: str) -> _Space:
        found = self._found.get(namespace, {}).values()
        own: PeerAuthentication | None = None
        statuses: dict[Key, PolicyStatus] = {}
        for each in sorted(found, key=_precedence):
            note = ""
            if each.selector and namespace == self._root:
                note = "a selector in the root namespace has no effect"
            elif not each.selector and own is not None:
                note = "an older one of the same scope is in force"
            elif not each.selector:
                own = each
            statuses[each.meta.key] = _status(each, self._root, note)
        strict = self._is_strict(namespace, own)
        made = (_convert(each, strict) for each in found if self._is_selecting(each))
        return _Space(own, {each.key: each for each in made if each is not None}, statuses)

    def policies_of(self, namespace: str, labels: Labels) -> list[str]:
        parent_strict = self.is_strict(namespace)
        several = [each for _, each in self.selecting.of(namespace, labels)]
        if several:
            each = min(several, key=_precedence)
            if _exceptions(each, parent_strict):
                return [f"{namespace}/{CONVERTED_PREFIX}{each.meta.name}"]
            parent_strict = _effective(each, parent_strict)
        return [self._static_key] if parent_strict else []

    def is_strict(self, namespace: str) -> bool:
        """The mode of workloads in a namespace that no selector names."""
        return self._is_strict(namespace, self._spaces.get(namespace, _BLANK).own)

    @property
    def _mesh_is_strict(self) -> bool:
        mesh = self._spaces.get(self._root, _BLANK).own
        return mesh is not None and mesh.mode is MtlsMode.STRICT

    def _is_strict(self, namespace: str, own: PeerAuthentication | None) -> bool:
        """As `own` says; that of the root namespace is the mesh's."""
        if own is None or namespace == self._root:
            return self._mesh_is_strict
        return _effective(own, self._mesh_is_strict)


def _precedence(value: PeerAuthentication) -> tuple[bool, tuple[bool, str, str]]:
    """The oldest first; but where the meaning of one cannot be known, STRICT holds."""
    return not value.broken, value.meta.age_key


def _effective(value: PeerAuthentication, parent_strict: bool) -> bool:
    return parent_strict if value.mode is MtlsMode.UNSET else value.mode is MtlsMode.STRICT


def _exceptions(value: PeerAuthentication, parent_strict: bool) -> tuple[int, ...]:
    """The ports whose mode differs from that of the workload as a whole."""
    strict = _effective(value, parent_strict)
    return tuple(
        port
        for port, mode in sorted(value.port_modes.items())
        if mode is not MtlsMode.UNSET and (mode is MtlsMode.STRICT) != strict
    )


def _static(root: str) -> Policy:
    return _deny(STATIC_STRICT, root, Match(not_principals=_NOBODY))


def _convert(value: PeerAuthentication, parent_strict: bool) -> Policy | None:
    ports = _exceptions(value, parent_strict)
    if not ports:
        return None
    if _effective(value, parent_strict):
        match = Match(not_principals=_NOBODY, not_destination_ports=ports)
    else:
        match = Match(not_principals=_NOBODY, destination_ports=ports)
    return _deny(f"{CONVERTED_PREFIX}{value.meta.name}", value.meta.namespace, match)


def _deny(name: str, namespace: str, match: Match) -> Policy:
    rules = (Rule((Clause((match,)),)),)
    return Policy(name, namespace, PolicyScope.WORKLOAD_SELECTOR, Action.DENY, rules)


def _status(value: PeerAuthentication, root: str, note: str) -> PolicyStatus:
    meta = value.meta
    notes = [note] if note else []
    if value.broken:
        notes.append(f"cannot be understood, so its scope is STRICT: {value.broken}")
    if value.selector:
        scope = PolicyScope.WORKLOAD_SELECTOR
    else:
        scope = PolicyScope.GLOBAL if meta.namespace == root else PolicyScope.NAMESPACE
    return PolicyStatus(
        kind="PeerAuthentication",
        namespace=meta.namespace,
        name=meta.name,
        delivered=not note,
        reason="Broken" if value.broken else "NoEffect" if note else "Accepted",
        notes=tuple(notes),
        scope=scope.name,
        action=value.mode.value,
        file=meta.file,
        line=meta.line,
    )
