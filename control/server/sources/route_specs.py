"""Specs of the Gateway API's objects, read and with its defaults filled in. Values only.

Parts that mean the same in the mesh are the model's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from control.model.route import (
    NO_CHANGE,
    Cors,
    HeaderChange,
    Redirect,
    RequestMatch,
    Retry,
    Rewrite,
)

GATEWAY_GROUP = "gateway.networking.k8s.io"


@dataclass(frozen=True, slots=True)
class TargetRef:
    """Reference to an object. `group` is empty for the core group; `namespace` is filled in."""

    group: str
    kind: str
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class ParentRef:
    """`section` and `port` are empty for all of the parent."""

    ref: TargetRef
    section: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True)
class BackendRef:
    """`port` 0: none is said. `refusal`: a filter of its own that we cannot do."""

    ref: TargetRef
    port: int = 0
    weight: int = 1
    request_headers: HeaderChange = NO_CHANGE
    response_headers: HeaderChange = NO_CHANGE
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class MirrorRef:
    backend: BackendRef
    share: float = 1.0  # a part of the requests, 0 to 1


@dataclass(frozen=True, slots=True)
class RouteFilters:
    """`refusal` names a filter that we cannot do: its requests must not pass without it."""

    request_headers: HeaderChange = NO_CHANGE
    response_headers: HeaderChange = NO_CHANGE
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    mirrors: tuple[MirrorRef, ...] = ()
    cors: Cors | None = None
    refusal: str = ""


@dataclass(frozen=True, slots=True)
class RouteRule:
    """Timeouts in seconds, as in `control.model.route`."""

    name: str = ""
    matches: tuple[RequestMatch, ...] = (RequestMatch(),)
    filters: RouteFilters = RouteFilters()
    backends: tuple[BackendRef, ...] = ()
    retry: Retry | None = None
    timeout_s: float | None = None
    try_timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class RouteSpec:
    parents: tuple[ParentRef, ...] = ()
    hostnames: tuple[str, ...] = ()
    rules: tuple[RouteRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Expression:
    """One of a selector's `matchExpressions`."""

    key: str
    operator: str
    values: tuple[str, ...] = ()

    def holds(self, labels: Mapping[str, str]) -> bool:
        match self.operator:
            case "In":
                return labels.get(self.key) in self.values
            case "NotIn":
                return labels.get(self.key) not in self.values
            case "Exists":
                return self.key in labels
            case _:
                return self.key not in labels


@dataclass(frozen=True, slots=True)
class GatewayListener:
    """`allowed`: namespaces that may use it, by the words of the API: All, Same, Selector, None."""

    name: str
    protocol: str
    port: int
    allowed: str = "Same"
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    expressions: tuple[Expression, ...] = ()

    def allows(self, own: str, namespace: str, labels: Mapping[str, str]) -> bool:
        """True if objects of a namespace with these labels may use it. `own`: the Gateway's."""
        match self.allowed:
            case "All":
                return True
            case "Same":
                return own == namespace
            case "Selector":
                pairs = all(labels.get(name) == text for name, text in self.labels.items())
                return pairs and all(each.holds(labels) for each in self.expressions)
            case _:
                return False


@dataclass(frozen=True, slots=True)
class GrantFrom:
    group: str
    kind: str
    namespace: str


@dataclass(frozen=True, slots=True)
class GrantTo:
    """`name` is empty for all of the kind."""

    group: str
    kind: str
    name: str = ""
