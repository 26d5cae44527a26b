"""Resources that the small API server serves: what is built in, and what definitions add."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Resource:
    """One resource in one version. `storage` is the group whose objects it shows (events have
    two), `has_status`: a PUT or PATCH of the object leaves its status alone."""

    group: str
    version: str
    plural: str
    kind: str
    is_namespaced: bool = True
    has_status: bool = False
    counts_generations: bool = False
    is_custom: bool = False

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def storage(self) -> tuple[str, str]:
        return ("" if self.plural == "events" else self.group, self.plural)

    @property
    def full_name(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def details(self) -> dict[str, str]:
        """As refusals name it."""
        return {"group": self.group, "kind": self.plural} if self.group else {"kind": self.plural}


def _core(plural: str, kind: str, **more: Any) -> Resource:
    return Resource("", "v1", plural, kind, **more)


BUILT_IN = (
    _core("namespaces", "Namespace", is_namespaced=False, has_status=True),
    _core("nodes", "Node", is_namespaced=False, has_status=True),
    _core("pods", "Pod", has_status=True, counts_generations=True),
    _core("services", "Service", has_status=True),
    _core("serviceaccounts", "ServiceAccount"),
    _core("configmaps", "ConfigMap"),
    _core("secrets", "Secret"),
    _core("events", "Event"),
    _core("resourcequotas", "ResourceQuota", has_status=True),
    Resource("events.k8s.io", "v1", "events", "Event"),
    Resource("discovery.k8s.io", "v1", "endpointslices", "EndpointSlice", counts_generations=True),
    Resource("coordination.k8s.io", "v1", "leases", "Lease"),
    Resource("apps", "v1", "daemonsets", "DaemonSet", has_status=True, counts_generations=True),
    Resource("apps", "v1", "deployments", "Deployment", has_status=True, counts_generations=True),
    Resource("rbac.authorization.k8s.io", "v1", "clusterroles", "ClusterRole", is_namespaced=False),
    Resource(
        "rbac.authorization.k8s.io",
        "v1",
        "clusterrolebindings",
        "ClusterRoleBinding",
        is_namespaced=False,
    ),
    Resource("rbac.authorization.k8s.io", "v1", "roles", "Role"),
    Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
    Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", has_status=True),
    Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"),
    Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", is_namespaced=False),
    Resource(
        "apiextensions.k8s.io",
        "v1",
        "customresourcedefinitions",
        "CustomResourceDefinition",
        is_namespaced=False,
        has_status=True,
        counts_generations=True,
    ),
)

# Off unless --runtime-config names it, in 1.36.
TRUST_BUNDLES = Resource(
    "certificates.k8s.io", "v1beta1", "clustertrustbundles", "ClusterTrustBundle", False
)


def defined_by(definition: dict[str, Any]) -> list[Resource]:
    """Resources of a CustomResourceDefinition: one for each version that it serves."""
    spec = definition["spec"]
    return [
        Resource(
            spec["group"],
            each["name"],
            spec["names"]["plural"],
            spec["names"]["kind"],
            is_namespaced=spec["scope"] == "Namespaced",
            has_status="status" in each.get("subresources", {}),
            counts_generations=True,
            is_custom=True,
        )
        for each in spec["versions"]
        if each["served"]
    ]


def istio_definition(plural: str, kind: str) -> dict[str, Any]:
    """A CRD of the security.istio.io group, with the two versions that people use."""
    return custom_definition("security.istio.io", plural, kind)


GATEWAY_KINDS = {
    "gatewayclasses": "GatewayClass",
    "gateways": "Gateway",
    "httproutes": "HTTPRoute",
    "grpcroutes": "GRPCRoute",
    "tcproutes": "TCPRoute",
    "referencegrants": "ReferenceGrant",
}


def gateway_definition(plural: str) -> dict[str, Any]:
    """A CRD of the Gateway API."""
    kind = GATEWAY_KINDS[plural]
    found = custom_definition("gateway.networking.k8s.io", plural, kind)
    found["spec"]["scope"] = "Cluster" if kind == "GatewayClass" else "Namespaced"
    return found


def custom_definition(group: str, plural: str, kind: str) -> dict[str, Any]:
    """A CRD with the versions v1 and v1beta1."""
    schema = {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": True}}
    versions: list[dict[str, Any]] = [
        {
            "name": name,
            "served": True,
            "storage": name == "v1",
            "subresources": {"status": {}},
            "schema": schema,
        }
        for name in ("v1", "v1beta1")
    ]
    names = {"plural": plural, "kind": kind, "listKind": f"{kind}List", "singular": kind.lower()}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "names": names, "scope": "Namespaced", "versions": versions},
    }
