"""Kinds of the API by their group, version and plural; where their objects live on the server."""

from __future__ import annotations

import urllib.parse
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Resource:
    """`group` is empty for the core group."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str = "", name: str = "", sub: str = "") -> str:
        """Path of the collection, of one object, or of a part of it, such as `status`. A namespaced
        kind without a namespace is the collection over all of them."""
        parts = ["apis", self.group] if self.group else ["api"]
        parts.append(self.version)
        if namespace and self.is_namespaced:
            parts += ["namespaces", namespace]
        elif name and self.is_namespaced:
            raise ValueError(f"{self.kind} {name}: a namespace is missing")
        parts.append(self.plural)
        parts += [each for each in (name, sub) if each]
        return "/" + "/".join(urllib.parse.quote(each, safe="") for each in parts)


def _core(plural: str, kind: str, is_namespaced: bool = True) -> Resource:
    return Resource("", "v1", plural, kind, is_namespaced)


SECURITY: Final = "security.istio.io"

CONFIG_MAPS = _core("configmaps", "ConfigMap")
EVENTS = _core("events", "Event")
NAMESPACES = _core("namespaces", "Namespace", is_namespaced=False)
NODES = _core("nodes", "Node", is_namespaced=False)
PODS = _core("pods", "Pod")
SECRETS = _core("secrets", "Secret")
SERVICE_ACCOUNTS = _core("serviceaccounts", "ServiceAccount")
SERVICES = _core("services", "Service")
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview", False)
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", False
)
TRUST_BUNDLES = Resource(
    "certificates.k8s.io", "v1beta1", "clustertrustbundles", "ClusterTrustBundle", False
)
CRDS = Resource(
    "apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition", False
)
AUTHORIZATION_POLICIES = Resource(SECURITY, "v1", "authorizationpolicies", "AuthorizationPolicy")
PEER_AUTHENTICATIONS = Resource(SECURITY, "v1", "peerauthentications", "PeerAuthentication")

GATEWAY_API: Final = "gateway.networking.k8s.io"
GATEWAY_CLASSES = Resource(GATEWAY_API, "v1", "gatewayclasses", "GatewayClass", False)
GATEWAYS = Resource(GATEWAY_API, "v1", "gateways", "Gateway")
HTTP_ROUTES = Resource(GATEWAY_API, "v1", "httproutes", "HTTPRoute")
GRPC_ROUTES = Resource(GATEWAY_API, "v1", "grpcroutes", "GRPCRoute")
TCP_ROUTES = Resource(GATEWAY_API, "v1", "tcproutes", "TCPRoute")
REFERENCE_GRANTS = Resource(GATEWAY_API, "v1", "referencegrants", "ReferenceGrant")
