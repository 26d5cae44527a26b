"""The kinds of objects, their readers, and the kinds that may be ignored in silence."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass

from control.server.sources import (
    core,
    gateways,
    grpc_routes,
    http_routes,
    security,
    services,
    tcp_routes,
)
from control.server.sources.objects import AnyObject, Meta
from control.server.sources.problem import UnknownKind, WrongApiVersion
from control.server.sources.reader import Reader
from control.server.sources.route_specs import GATEWAY_GROUP

Read = Callable[[Reader, Meta], AnyObject]

POLICY_KINDS = frozenset({"AuthorizationPolicy", "PeerAuthentication"})
SECURITY_GROUP = "security.istio.io"


@dataclass(frozen=True, slots=True)
class ObjectKind:
    api_versions: tuple[str, ...]
    read: Read


_SECURITY = (f"{SECURITY_GROUP}/v1", f"{SECURITY_GROUP}/v1beta1")
_GATEWAY = (f"{GATEWAY_GROUP}/v1", f"{GATEWAY_GROUP}/v1beta1")
KINDS: dict[str, ObjectKind] = {
    "Namespace": ObjectKind(("v1",), core.read_namespace),
    "ServiceAccount": ObjectKind(("v1",), core.read_service_account),
    "Node": ObjectKind(("v1",), core.read_node),
    "Pod": ObjectKind(("v1",), core.read_pod),
    "Service": ObjectKind(("v1",), services.read_service),
    "EndpointSlice": ObjectKind(("discovery.k8s.io/v1",), services.read_slice),
    "AuthorizationPolicy": ObjectKind(_SECURITY, security.read_authorization_policy),
    "PeerAuthentication": ObjectKind(_SECURITY, security.read_peer_authentication),
    "GatewayClass": ObjectKind(_GATEWAY, gateways.read_gateway_class),
    "Gateway": ObjectKind(_GATEWAY, gateways.read_gateway),
    "HTTPRoute": ObjectKind(_GATEWAY, http_routes.read_http_route),
    "GRPCRoute": ObjectKind(_GATEWAY[:1], grpc_routes.read_grpc_route),
    "TCPRoute": ObjectKind(
        (f"{GATEWAY_GROUP}/v1", f"{GATEWAY_GROUP}/v1alpha2"), tcp_routes.read_tcp_route
    ),
    "ReferenceGrant": ObjectKind(_GATEWAY, gateways.read_reference_grant),
}

# Kinds of the core group that mean nothing to a mesh. Other groups are ignored as a whole: a folder
# of manifests holds Deployments, Ingresses and custom resources of every maker.
_CORE_IGNORED = frozenset(
    {
        "Binding",
        "ComponentStatus",
        "ConfigMap",
        "Endpoints",
        "Event",
        "LimitRange",
        "PersistentVolume",
        "PersistentVolumeClaim",
        "PodTemplate",
        "ReplicationController",
        "ResourceQuota",
        "Secret",
    }
)
# Here a name we do not know may be a policy that somebody relies on. RequestAuthentication is for
# waypoints: at L4 it changes nothing.
_SECURITY_IGNORED = frozenset({"RequestAuthentication"})
# `Service` also exists in other groups (Knative's, for one); policies do not.
_SIMILARITY_MIN = 0.85


def find_kind(document: Reader) -> ObjectKind | None:
    """Reader of this document; None when it may be ignored. Raises for a likely slip."""
    api_version, kind = document.text("apiVersion"), document.text("kind")
    if not kind or not api_version:
        missing = "kind" if not kind else "apiVersion"
        raise UnknownKind(f"{missing} is missing", document.line())
    group = api_version.rpartition("/")[0]
    known = KINDS.get(kind)
    if known is not None and api_version in known.api_versions:
        return known
    if known is not None and (kind in POLICY_KINDS or group in _groups_of(known)):
        expected = " or ".join(known.api_versions)
        raise WrongApiVersion(
            f"{kind} has apiVersion {expected}, not {api_version}", document.line("apiVersion")
        )
    if _may_be_ignored(group, kind):
        return None
    raise UnknownKind(f"unknown kind {kind!r} of {api_version}{_hint(kind)}", document.line("kind"))


def _groups_of(kind: ObjectKind) -> set[str]:
    return {version.rpartition("/")[0] for version in kind.api_versions}


def _may_be_ignored(group: str, kind: str) -> bool:
    if group == "":
        return kind in _CORE_IGNORED
    if group == SECURITY_GROUP:
        return kind in _SECURITY_IGNORED
    return kind in KINDS or not _similar(kind, POLICY_KINDS)


def similar_policy(kind: str) -> str | None:
    """The policy kind that this is a slip of, if it is."""
    return next(iter(_similar(kind, POLICY_KINDS)), None)


def _similar(kind: str, names: frozenset[str]) -> list[str]:
    return difflib.get_close_matches(kind, names, n=1, cutoff=_SIMILARITY_MIN)


def _hint(kind: str) -> str:
    found = _similar(kind, frozenset(KINDS) | _CORE_IGNORED)
    return f", did you mean {found[0]}?" if found else ""
