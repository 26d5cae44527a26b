from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.cli.cluster.facts import ClusterFacts, Node, ServerVersion
from agent.cli.cluster.platform import detect, is_autopilot


def facts(*nodes: dict[str, Any], groups: tuple[str, ...] = ()) -> ClusterFacts:
    found = [msgspec.convert(each, Node) for each in nodes]
    return ClusterFacts(ServerVersion("v1.36.2"), list(groups), found, [], [], [], [])


def node(kubelet: str = "v1.36.2", provider: str = "", **labels: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "n", "labels": {k.replace("__", "/"): v for k, v in labels.items()}},
        "spec": {"providerID": provider},
        "status": {"nodeInfo": {"kubeletVersion": kubelet}},
    }


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (node(), "generic"),
        (node("v1.36.2+k3s1"), "k3s"),
        (node("v1.36.2+rke2r1"), "rke2"),
        (node("v1.36.2", **{"microk8s.io__cluster": "true"}), "microk8s"),
        (node("v1.34.1-gke.100", "gce://p/z/n"), "gke"),
        (node("v1.34.1-eks-abc", "aws:///z/i"), "eks"),
        (node(provider="aws:///z/i"), "generic"),
        (node(provider="kind://docker/kind/n"), "kind"),
        ({**node(provider="azure:///x")}, "generic"),
    ],
)
def test_a_platform_by_its_nodes(value: dict[str, Any], name: str) -> None:
    assert detect(facts(value)) == {"platform": name}


def test_aks_is_told_from_other_clusters_on_azure() -> None:
    value = node(provider="azure:///x")
    value["metadata"]["labels"] = {"kubernetes.azure.com/cluster": "c"}
    assert detect(facts(value)) == {"platform": "aks"}


def test_most_nodes_decide_and_no_node_is_generic() -> None:
    assert detect(facts(node("v1+k3s1"), node("v1+k3s1"), node())) == {"platform": "k3s"}
    assert detect(facts()) == {"platform": "generic"}


def test_openshift_by_its_api() -> None:
    assert detect(facts(node(), groups=("config.openshift.io",))) == {"platform": "openshift"}


def test_autopilot() -> None:
    value = node()
    value["metadata"]["name"] = "gk3-pool-1"
    assert is_autopilot(facts(value).nodes)
    assert not is_autopilot(facts(node()).nodes)
