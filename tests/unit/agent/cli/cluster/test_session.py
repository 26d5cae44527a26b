from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.cli.cluster.choice import ClusterChoice
from agent.cli.cluster.session import ClusterError, NoCluster, ask, words_of
from control.kube.client import KubeClient
from control.kube.errors import AccessError, ApiError
from control.kube.resources import NODES
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal


async def nodes(client: KubeClient) -> dict[str, Any]:
    return await client.get(NODES.path(), dict[str, Any])


def test_the_chosen_cluster_is_asked(kube: KubeServer, kubeconfig: Path) -> None:
    assert len(ask(ClusterChoice(kubeconfig), nodes)["items"]) == 2
    with kube.away(), pytest.raises(NoCluster, match="cluster small: not reachable"):
        ask(ClusterChoice(kubeconfig), nodes)


def test_a_refusal_is_told_in_the_servers_words(kube: KubeServer, kubeconfig: Path) -> None:
    said = 'nodes is forbidden: User "u" cannot list resource "nodes"'
    kube.fail("GET /api/v1/nodes", refusal(403, "Forbidden", said))
    with pytest.raises(ClusterError) as refused:
        ask(ClusterChoice(kubeconfig), nodes)
    assert str(refused.value) == f"cluster small: {said}"


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(AccessError, match="absent"):
        ask(ClusterChoice(tmp_path / "absent"), nodes)


def test_causes_are_told_where_the_message_leaves_them_out() -> None:
    exc = ApiError(422, "Invalid", "no good", causes=("spec.x: Required",), where="PUT /x")
    assert words_of(exc) == "PUT /x: no good (spec.x: Required)"
    assert "credentials" in words_of(ApiError(401, "Unauthorized", "Unauthorized"))
