"""PeerAuthentication objects → DENY policies: "STRICT" denies every caller without a principal.

One static policy says STRICT for a whole workload; workloads name it. A workload-level object with
port exceptions becomes a policy of its own, which replaces the static one where ports are opened
and joins nothing where they are closed. DISABLE counts as PERMISSIVE everywhere, also for a port
under an inherited STRICT (Istio overlooks that one case; we treat both alike).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

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
from control.server.compile.policies import PolicyStatus
from control.server.compile.settings import Settings
from control.server.compile.workloads import selects
from control.server.sources.objects import Labels, MtlsMode, PeerAuthentication

STATIC_STRICT = "istio_converted_static_strict"
CONVERTED_PREFIX = "converted_peer_authentication_"

_NOBODY = (StringMatch(StringMatchKind.PRESENCE),)  # as not_principals: no identity at all


@dataclass(frozen=True, slots=True)
class MutualTls:
    """All PeerAuthentications, resolved. `policies_of` is asked once per workload."""

    static_key: str
    policies: tuple[Policy, ...]
    statuses: tuple[PolicyStatus, ...]
    mesh: PeerAuthentication | None
    by_namespace: Mapping[str, PeerAuthentication]
    selecting: Mapping[str, list[PeerAuthentication]]  # oldest first

    def policies_of(self, namespace: str, labels: Labels) -> list[str]:
        parent_strict = self.is_strict(namespace)
        for each in self.selecting.get(namespace, ()):
            if selects(each.selector, labels):
                if _exceptions(each, parent_strict):
                    return [f"{namespace}/{CONVERTED_PREFIX}{each.meta.name}"]
                return [self.static_key] if _effective(each, parent_strict) else []
        return [self.static_key] if parent_strict else []

    def is_strict(self, namespace: str) -> bool:
        """The mode of workloads in a namespace that no selector names."""
        strict = self.mesh is not None and self.mesh.mode is MtlsMode.STRICT
        own = self.by_namespace.get(namespace)
        return strict if own is None else _effective(own, strict)


def compile_mutual_tls(found: Iterable[PeerAuthentication], settings: Settings) -> MutualTls:
    # A broken one comes first: where the meaning cannot be known, STRICT holds.
    ordered = sorted(found, key=lambda each: (not each.broken, each.meta.age_key))
    root = settings.root_namespace
    mesh: PeerAuthentication | None = None
    by_namespace: dict[str, PeerAuthentication] = {}
    selecting: dict[str, list[PeerAuthentication]] = defaultdict(list)
    statuses = []
    for each in ordered:
        namespace = each.meta.namespace
        note = ""
        if each.may_select and namespace != root:
            selecting[namespace].append(each)
        if each.selector and namespace == root:
            note = "a selector in the root namespace has no effect"
        elif each.selector:
            selecting[namespace].append(each)
        elif namespace == root and mesh is None:
            mesh = each
        elif namespace != root and namespace not in by_namespace:
            by_namespace[namespace] = each
        else:
            note = "an older one of the same scope is in force"
        statuses.append(_status(each, root, note))
    resolved = MutualTls(f"{root}/{STATIC_STRICT}", (), (), mesh, by_namespace, selecting)
    policies = [_static(root)] if ordered else []
    for namespace, several in selecting.items():
        for each in several:
            converted = _convert(each, resolved.is_strict(namespace))
            if converted is not None:
                policies.append(converted)
    return MutualTls(
        resolved.static_key, tuple(policies), tuple(statuses), mesh, by_namespace, selecting
    )


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
