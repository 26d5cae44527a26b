from __future__ import annotations

from pathlib import Path

from agent.cli.cluster import facts
from agent.cli.cluster.choice import ClusterChoice
from agent.cli.cluster.session import ask
from control.kube.client import KubeClient
from control.kube.resources import NODES
from tests.support.kube.controllers import node
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal


def test_facts_of_a_cluster(kube: KubeServer, kubeconfig: Path) -> None:
    kube.install_istio_kinds()
    found = ask(ClusterChoice(kubeconfig), facts.read)
    assert found.version.git_version == "v1.36.2"
    assert [each.name for each in found.nodes] == ["kn1", "kn2"]
    kind = "CustomResourceDefinition"
    assert found.find(kind, "authorizationpolicies.security.istio.io") is not None
    assert found.find(kind, "other") is None
    assert found.find("Namespace", "default") is not None
    assert found.find("Namespace", "authorizationpolicies.security.istio.io") is None
    assert found.find("Secret", "default") is None
    assert found.own_definitions() == []
    assert "apps" in found.groups
    assert found.control is None
    assert found.unknown == []


def test_a_list_that_is_forbidden_is_unknown_and_not_empty(
    kube: KubeServer, kubeconfig: Path
) -> None:
    kube.fail("GET /api/v1/nodes", refusal(403, "Forbidden", "no nodes for you"))
    assert ask(ClusterChoice(kubeconfig), facts.read).unknown == ["no nodes for you"]


def test_a_collection_is_read_page_by_page(kube: KubeServer, kubeconfig: Path) -> None:
    for number in range(5):
        kube.put(node(f"more{number}"))

    async def act(client: KubeClient) -> list[facts.Node]:
        return await facts.list_all(client, NODES.path(), facts.Node, {"limit": "3"})

    assert len(ask(ClusterChoice(kubeconfig), act)) == 7
    assert kube.faults.count("GET /api/v1/nodes") == 3
