"""The end of what was deleted: ztunnels that drain get less time than they have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.cluster import ending
from agent.cli.cluster.choice import ClusterChoice
from agent.cli.cluster.session import ask
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal

PLACE = "tulle-system"
LABELS = {"app.kubernetes.io/part-of": "tulle", "app.kubernetes.io/name": "tulle-ztunnel-draining"}


def leaving(kube: KubeServer, name: str, **about: Any) -> None:
    if kube.get("v1", "Namespace", PLACE) is None:
        kube.namespace(PLACE)
    meta = {"name": name, "namespace": PLACE, "labels": LABELS, **about}
    kube.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {"nodeName": "kn1"}})


def deleted(kube: KubeServer) -> list[tuple[str, int]]:
    return [
        (each.path.rpartition("/")[2], json.loads(each.body)["gracePeriodSeconds"])
        for each in kube.faults.requests
        if each.method == "DELETE"
    ]


def test_a_drain_that_began_in_a_rollout_is_not_waited_for(
    kube: KubeServer, kubeconfig: Path
) -> None:
    """Nobody tells it that all pods have left, if its agent was replaced, too."""
    leaving(kube, "old", deletionGracePeriodSeconds=330)
    leaving(kube, "quick", deletionGracePeriodSeconds=10)
    leaving(kube, "running")
    said = ask(ClusterChoice(kubeconfig), ending.pods)
    assert said == "of Tulle 3 pods are still ending"
    assert deleted(kube) == [("old", ending.GRACE_S)]


@pytest.mark.parametrize("code", [404, 409])
def test_one_that_has_ended_by_now_is_no_failure(
    kube: KubeServer, kubeconfig: Path, code: int
) -> None:
    leaving(kube, "old", deletionGracePeriodSeconds=330)
    kube.fail("DELETE .*", refusal(code, "Gone", "it is not there"))
    assert ask(ClusterChoice(kubeconfig), ending.pods) == "of Tulle 1 pod is still ending"


def test_nothing_is_left_of_a_namespace_that_is_gone(kube: KubeServer, kubeconfig: Path) -> None:
    assert ask(ClusterChoice(kubeconfig), ending.pods) == ""
    assert ask(ClusterChoice(kubeconfig), ending.namespace) == ""
