"""The namespace of the mesh's own policies: made where there is none, nobody else's touched."""

from __future__ import annotations

from tests.support.kube.controllers import Controllers
from tests.support.kube.server import KubeServer
from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods

ROOT = "istio-system"


def label(kube: KubeServer) -> str:
    found = kube.get("v1", "Namespace", ROOT)
    assert found is not None
    return str(found["metadata"].get("labels", {}).get("app.kubernetes.io/part-of", ""))


def test_one_that_is_there_is_left_alone(
    kube: KubeServer, controllers: Controllers, run: Tulle
) -> None:
    kube.commands = MeshInPods()
    kube.namespace(ROOT, {"owner": "me"})
    assert run("install").exit_code == 0
    assert label(kube) == ""
    assert run("uninstall", "--purge", "--yes").exit_code == 0
    assert label(kube) == ""


def test_one_of_ours_stays_in_an_upgrade_and_in_a_purge_with_something_in_it(
    kube: KubeServer, controllers: Controllers, run: Tulle
) -> None:
    kube.commands = MeshInPods()
    assert run("install").exit_code == 0
    assert run("install", "--set", "log.level=debug").exit_code == 0
    assert label(kube) == "tulle"
    meta = {"name": "cacerts", "namespace": ROOT}
    kube.put({"apiVersion": "v1", "kind": "Secret", "metadata": meta})
    done = run("uninstall", "--purge", "--yes")
    assert done.exit_code == 0, done.stderr
    assert f"kept, as Secret cacerts is in it: Namespace {ROOT}" in done.stderr
    assert label(kube) == "tulle"


def test_it_comes_with_the_definitions(
    kube: KubeServer, controllers: Controllers, run: Tulle
) -> None:
    kube.commands = MeshInPods()
    assert run("install", "--set", "crds.install=never").exit_code == 0
    assert kube.get("v1", "Namespace", ROOT) is None
