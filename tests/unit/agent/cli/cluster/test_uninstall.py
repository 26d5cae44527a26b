"""Removal: the order, what stays, and what is left when it is repeated or broken off."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.support.kube.controllers import Controllers
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal
from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods

PLACE = "tulle-system"


@pytest.fixture
def mesh(kube: KubeServer, controllers: Controllers, run: Tulle) -> MeshInPods:
    found = MeshInPods()
    kube.commands = found
    assert run("install").exit_code == 0
    kube.put(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "tulle-ca-root-cert", "namespace": "default"},
        }
    )
    kube.put(
        {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "tulle-ca", "namespace": PLACE},
        }
    )
    lease = {"metadata": {"name": "tulle-control", "namespace": PLACE}, "spec": {}}
    kube.put({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", **lease})
    kube.namespace("shop", {"istio.io/dataplane-mode": "ambient", "team": "a"})
    return found


def ours(kube: KubeServer) -> set[str]:
    return {f"{key[0][1]}/{key[2]}" for key in kube.store.objects if "tulle" in str(key)}


def test_everything_goes_but_keys_and_definitions(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    done = run("uninstall", "--yes")
    assert done.exit_code == 0, done.stderr
    assert ours(kube) == {"namespaces/tulle-system", "secrets/tulle-ca"}
    assert kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", POLICIES) is not None
    assert "kept: namespace tulle-system" in done.stderr
    assert run("uninstall", "--yes").exit_code == 0  # nothing is left to do


POLICIES = "authorizationpolicies.security.istio.io"


def test_a_purge_leaves_nothing(kube: KubeServer, mesh: MeshInPods, run: Tulle) -> None:
    done = run("uninstall", "--purge", "--yes")
    assert done.exit_code == 0, done.stderr
    assert ours(kube) == set()
    assert kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", POLICIES) is None
    shop = kube.get("v1", "Namespace", "shop")
    assert shop is not None
    assert shop["metadata"]["labels"] == {"kubernetes.io/metadata.name": "shop", "team": "a"}


def test_definitions_of_somebody_else_stay_in_a_purge(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    kube.install_istio_kinds()
    assert run("uninstall", "--purge", "--yes").exit_code == 0
    assert kube.get("apiextensions.k8s.io/v1", "CustomResourceDefinition", POLICIES) is not None


def changes(kube: KubeServer) -> list[str]:
    return [
        f"{each.method} {each.path.rpartition('/')[2]}"
        for each in kube.faults.requests
        if each.method in ("PATCH", "DELETE")
    ]


def test_pods_are_let_go_before_nodes_are_cleaned_and_objects_go(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    kube.faults.requests.clear()
    assert run("uninstall", "--yes").exit_code == 0
    found = changes(kube)
    assert found[:2] == ["PATCH tulle-control", "PATCH tulle-agent"]
    assert {"DELETE tulle-agent", "DELETE tulle-ztunnel"} == set(found[2:4])
    assert "DELETE tulle-control" in found[4:]


@pytest.mark.parametrize(
    ("state", "reason", "said"),
    [
        ("captured", "", "1 pod is still captured"),
        ("releasing", "draining", "1 pod is still captured"),
        ("not_enrolled", "lingering", "1 pod is released, with time for open connections to end"),
    ],
)
def test_nothing_goes_while_a_node_holds_a_pod(
    kube: KubeServer, mesh: MeshInPods, run: Tulle, state: str, reason: str, said: str
) -> None:
    pod = {"namespace": "shop", "name": "a", "state": state, "reason": reason}
    mesh.nodes["kn1"] = {"agent": {"pods": [pod]}}
    kube.faults.requests.clear()
    done = run("uninstall", "--yes", "--timeout", "1s")
    assert done.exit_code == 1
    assert said in done.stderr
    assert changes(kube) == ["PATCH tulle-control"]
    assert "daemonsets/tulle-agent" in ours(kube)
    done = run("uninstall", "--yes", "--timeout", "1s", "--force")
    assert done.exit_code == 0, done.stderr
    assert f"warning: going on without it: {said}" in done.stderr


def test_an_agent_that_was_told_before_is_not_asked_again(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    fault = kube.fail("DELETE .*", refusal(503, "ServiceUnavailable", "etcd is away"))
    assert run("uninstall", "--yes").exit_code == 1
    kube.faults.active.remove(fault)
    mesh.silent |= {"tulle-agent-0", "tulle-agent-1"}  # `tulle-agent --uninstall` has no socket
    assert run("uninstall", "--yes").exit_code == 0


def test_captured_pods_without_agents_are_not_left_behind(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    """Somebody has deleted the namespace: nothing on the nodes would ever be cleaned."""
    kube.remove("apps/v1", "DaemonSet", "tulle-agent", PLACE)
    marks = {"tulle.io/redirection": "enabled"}
    meta = {"name": "web", "namespace": "shop", "annotations": marks}
    kube.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta})
    done = run("uninstall", "--yes")
    assert done.exit_code == 1
    assert "1 pod is captured (shop/web), and no agents are there" in done.stderr
    assert "deployments/tulle-control" in ours(kube)
    done = run("uninstall", "--yes", "--force")
    assert done.exit_code == 0, done.stderr
    assert "warning: going on: 1 pod is captured" in done.stderr


def test_what_helm_has_installed_is_helms(kube: KubeServer, run: Tulle) -> None:
    labels = {
        "app.kubernetes.io/name": "tulle-control",
        "app.kubernetes.io/managed-by": "Helm",
    }
    meta: dict[str, Any] = {"name": "tulle-control", "namespace": "default", "labels": labels}
    kube.put({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": meta, "spec": {}})
    done = run("uninstall", "--yes")
    assert done.exit_code == 1
    assert "helm uninstall" in done.stderr


def test_a_node_that_does_not_answer_is_named(
    controllers: Controllers, mesh: MeshInPods, run: Tulle
) -> None:
    controllers.hold("tulle-agent", "CreateContainerError", "no disk")
    done = run("uninstall", "--yes", "--timeout", "1s")
    assert done.exit_code == 1
    assert "agents 0 of 2: kn1 (container agent: CreateContainerError: no disk), kn2" in done.stderr


def test_workloads_of_another_manager_are_replaced_whole(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    """Manifests applied by kubectl: a startup probe for a socket that is gone by then would stay in
    an apply of ours, and no agent would ever be done."""
    kube.remove("v1", "ConfigMap", "tulle-installation", PLACE)
    value = copy.deepcopy(kube.get("apps/v1", "DaemonSet", "tulle-agent", PLACE))
    assert value is not None
    value["spec"]["template"]["spec"]["hostname"] = "theirs"
    kube.put(value)
    kube.faults.requests.clear()
    assert run("uninstall", "--yes").exit_code == 0
    path = "/apis/apps/v1/namespaces/tulle-system/daemonsets/tulle-agent"
    (told,) = [each for each in kube.faults.requests if str(each) == f"PUT {path}"]
    assert b" --uninstall" in told.body
    assert b"theirs" not in told.body


def test_a_purge_takes_the_root_namespace_that_was_made(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    made = kube.get("v1", "Namespace", ROOT)
    assert made is not None
    assert made["metadata"]["labels"]["app.kubernetes.io/part-of"] == "tulle"
    assert run("uninstall", "--yes").exit_code == 0
    assert kube.get("v1", "Namespace", ROOT) is not None
    assert run("uninstall", "--purge", "--yes").exit_code == 0
    assert kube.get("v1", "Namespace", ROOT) is None


ROOT = "istio-system"
