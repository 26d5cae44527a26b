"""Policies of layer 7 by what they are for: a service, a waypoint, all waypoints of a class. Pure.

Such a policy stands in the namespace of its target; one for a class in the root namespace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Final, TypeAlias

from control.model.http_policy import HttpPolicy, HttpPolicyRule
from control.model.policy import Action
from control.model.route import Layer
from control.model.workload import Service
from control.server.compile.policies import PolicyStatus
from control.server.compile.settings import Settings
from control.server.gateway.policies import CompiledHttp, compile_http
from control.server.gateway.policy_statuses import policy_status
from control.server.sources.objects import AuthorizationPolicy, Gateway, Key
from control.server.sources.route_specs import GATEWAY_GROUP, TargetRef

POLICIES_MAX: Final = 256  # at one front; with more it is closed
TOO_MANY: Final = HttpPolicy("tulle/too-many-policies", Action.DENY, (HttpPolicyRule(),))

Target: TypeAlias = tuple[str, str, str]  # kind, namespace, name


@dataclass(frozen=True, slots=True)
class _Targeted:
    value: AuthorizationPolicy
    targets: tuple[Target, ...]
    by_layer: dict[Layer, CompiledHttp]


class TargetedPolicies:
    def __init__(self, settings: Settings) -> None:
        self._root = settings.root_namespace
        self._found: dict[Key, _Targeted] = {}
        self._for: dict[Target, set[Key]] = {}

    def put(self, key: Key, value: AuthorizationPolicy | None) -> set[Target]:
        """Targets that have other policies than before."""
        before = self._found.pop(key, None)
        targets = () if before is None else before.targets
        for target in targets:
            self._for[target].discard(key)
            if not self._for[target]:
                del self._for[target]
        if value is None or not value.targets:
            return set(targets)
        after = _Targeted(
            value,
            tuple(dict.fromkeys(_targets(value, self._root))),
            {layer: compile_http(value, layer) for layer in Layer},
        )
        self._found[key] = after
        for target in after.targets:
            self._for.setdefault(target, set()).add(key)
        return {*targets, *after.targets}

    def of(self, targets: Iterable[Target], layer: Layer) -> tuple[HttpPolicy, ...]:
        """Policies for any of these, in one order."""
        keys = sorted({key for each in targets for key in self._for.get(each, ())})
        found = [self._found[key].by_layer[layer].policy for key in keys]
        policies = tuple(each for each in found if each is not None)
        return policies if len(policies) <= POLICIES_MAX else (TOO_MANY,)

    def keys(self) -> Iterator[Key]:
        return iter(self._found)

    def statuses(self, is_served: Callable[[Target], bool]) -> dict[Key, PolicyStatus]:
        """`is_served`: True if a waypoint enforces what is for this target."""
        return {key: self._status(each, is_served) for key, each in self._found.items()}

    def _status(self, found: _Targeted, is_served: Callable[[Target], bool]) -> PolicyStatus:
        unserved = [
            each
            for each in found.value.targets
            if (target := _target(each, found.value, self._root)) is None or not is_served(target)
        ]
        return policy_status(found.value, found.by_layer[Layer.HTTP], unserved)


def targets_of(
    gateway: Gateway, settings: Settings, service: Service | None = None
) -> tuple[Target, ...]:
    """Everything that a policy for what stands behind this waypoint may name; the service too, if
    that is one."""
    meta = gateway.meta
    own: tuple[Target, ...] = ()
    if service is not None:
        own = (("Service", service.namespace, service.name),)
    return (
        *own,
        ("Gateway", meta.namespace, meta.name),
        ("GatewayClass", settings.root_namespace, gateway.class_name),
    )


def _targets(value: AuthorizationPolicy, root: str) -> Iterator[Target]:
    for each in value.targets:
        if (target := _target(each, value, root)) is not None:
            yield target


def _target(ref: TargetRef, value: AuthorizationPolicy, root: str) -> Target | None:
    """None for one that is not in its reach, or of a kind that we do not serve."""
    namespace = value.meta.namespace
    if ref.namespace == namespace and _is_ours(ref, namespace == root):
        return ref.kind, ref.namespace, ref.name
    return None


def _is_ours(ref: TargetRef, is_root: bool) -> bool:
    match ref.group, ref.kind:
        case "", "Service":
            return True
        case group, "Gateway":
            return group == GATEWAY_GROUP
        case group, "GatewayClass":
            return group == GATEWAY_GROUP and is_root
        case _:
            return False
