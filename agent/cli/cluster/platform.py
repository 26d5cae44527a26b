"""The platform of a cluster, read off its nodes. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from agent.cli.cluster.facts import ClusterFacts, Node

GENERIC = "generic"


def detect(facts: ClusterFacts) -> dict[str, Any]:
    """Settings for the platform; generic where nothing speaks for another. Mixed nodes: those of
    most of them."""
    if "config.openshift.io" in facts.groups:
        return {"platform": "openshift"}
    found = [_of(each) for each in facts.nodes]
    return {"platform": max(sorted(set(found)), key=found.count) if found else GENERIC}


def _of(node: Node) -> str:
    version, provider, labels = node.about.kubelet_version, node.spec.provider, node.metadata.labels
    if "+k3s" in version or "+rke2" in version:
        return "k3s" if "+k3s" in version else "rke2"
    if (labels or {}).get("microk8s.io/cluster") == "true":
        return "microk8s"
    if provider.startswith("kind:"):
        return "kind"
    if "-gke." in version or provider.startswith("gce:"):
        return "gke"
    if "-eks-" in version:
        return "eks"
    if provider.startswith("azure:") and "kubernetes.azure.com/cluster" in (labels or {}):
        return "aks"
    return GENERIC


def is_autopilot(nodes: Sequence[Node]) -> bool:
    """GKE Autopilot, which admits no DaemonSet like ours."""
    return any(
        each.name.startswith("gk3-")
        or each.metadata.label("cloud.google.com/gke-provisioning") == "autopilot"
        for each in nodes
    )
