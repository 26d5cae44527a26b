"""`tulle namespace add` and `remove` in a cluster."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.kube.server import KubeServer
from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods

OURS, ISTIOS = "tulle.io/dataplane-mode", "istio.io/dataplane-mode"


def labels(kube: KubeServer, name: str = "team") -> dict[str, Any]:
    value = kube.get("v1", "Namespace", name)
    assert value is not None
    found = value["metadata"]["labels"]
    return {key: each for key, each in found.items() if "dataplane" in key}


@pytest.fixture(autouse=True)
def _settled(example_mesh: MeshInPods) -> None:
    """No pod is wanted in the namespace, so that nothing is waited for."""
    example_mesh.control["pods"] = []


def test_in_and_out_again(kube: KubeServer, run: Tulle) -> None:
    kube.namespace("team")
    done = run("namespace", "add", "team")
    assert done.exit_code == 0, done.stderr
    assert "labelled namespace team" in done.stderr
    assert "0 of 0 pods captured" in done.stderr
    assert labels(kube) == {OURS: "ambient"}
    assert "nothing to change" in run("namespace", "add", "team").stderr
    done = run("namespace", "remove", "team")
    assert "team is out of the mesh" in done.stderr
    assert labels(kube) == {}


def test_a_label_that_would_win_goes(kube: KubeServer, run: Tulle) -> None:
    kube.namespace("team", {"istio.io/dataplane-mode": "none"})
    assert run("namespace", "add", "team").exit_code == 0
    assert labels(kube) == {OURS: "ambient"}


def test_istios_label_is_enough_and_goes_at_the_end(kube: KubeServer, run: Tulle) -> None:
    kube.namespace("team", {"istio.io/dataplane-mode": "ambient"})
    assert "nothing to change" in run("namespace", "add", "team").stderr
    assert labels(kube) == {ISTIOS: "ambient"}
    assert run("namespace", "remove", "team", "--yes").exit_code == 0
    assert labels(kube) == {}


def test_a_namespace_of_gitops_gets_a_warning(kube: KubeServer, run: Tulle) -> None:
    kube.namespace("team", {"argocd.argoproj.io/instance": "x"})
    done = run("namespace", "add", "team")
    assert "belongs to Argo CD" in done.stderr


@pytest.mark.parametrize(
    ("name", "code", "said"),
    [
        ("kube-system", 1, "system namespace"),
        ("tulle-system", 1, "system namespace"),
        ("absent", 2, "no namespace 'absent'; there are: default, "),
    ],
)
def test_what_cannot_join_is_refused(run: Tulle, name: str, code: int, said: str) -> None:
    done = run("namespace", "add", name)
    assert done.exit_code == code
    assert said in done.stderr
