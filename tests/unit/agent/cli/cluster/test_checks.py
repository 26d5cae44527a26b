"""`tulle check` of a cluster."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.kube.controllers import Controllers, node
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal
from tests.unit.agent.cli.cluster.conftest import Done, Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods

ARGO = {"argocd.argoproj.io/instance": "mesh"}


def checks(done: Done, code: str) -> list[dict[str, Any]]:
    categories = json.loads(done.stdout)["categories"]
    return [each for one in categories for each in one["checks"] if each["code"] == code]


@pytest.fixture(autouse=True)
def _agents_are_well(request: pytest.FixtureRequest) -> None:
    if "example_mesh" in request.fixturenames:
        for pages in request.getfixturevalue("example_mesh").nodes.values():
            pages["check"] = []


def test_a_cluster_before_an_installation(kube: KubeServer, run: Tulle) -> None:
    done = run("check", "--pre")
    assert done.exit_code == 0, done.stderr
    assert "√ no other mesh claims pods" in done.stdout
    kube.put(node("old", kernelVersion="4.19.0"))
    done = run("check", "--pre", "-o", "short")
    assert done.exit_code == 0  # a warning: other nodes are well
    assert "old: 4.19.0" in done.stdout


@pytest.mark.usefixtures("example_mesh")
def test_parts_that_run_are_well(run: Tulle) -> None:
    done = run("check", "-o", "json")
    assert [each["result"] for each in checks(done, "TUL1501")] == ["ok"]
    assert [each["result"] for each in checks(done, "TUL1502")] == ["ok"]
    assert checks(done, "TUL1101") == []


@pytest.mark.usefixtures("example_mesh")
def test_a_part_that_does_not_get_on_is_told_with_its_pod(
    controllers: Controllers, run: Tulle
) -> None:
    controllers.hold("tulle-ztunnel", "CrashLoopBackOff", "back-off 10s")
    assert run("install", "--no-wait", "--set", "ztunnel.workers=2").exit_code == 0
    (found,) = checks(run("check", "-o", "json"), "TUL1501")
    assert found["result"] == "error"
    assert "ztunnels 0 of 2" in found["error"]
    assert "tulle-ztunnel-0 on n1: container ztunnel: CrashLoopBackOff" in found["error"]


def test_hints_are_those_of_a_cluster(example_mesh: MeshInPods, run: Tulle) -> None:
    example_mesh.silent.add("tulle-agent-0")
    (found,) = checks(run("check", "-o", "json"), "TUL1101")
    assert found["node"] == "n1"
    assert "kubectl" in found["hint"]


@pytest.mark.usefixtures("example_mesh")
def test_a_part_that_may_not_be_read_is_not_called_well(kube: KubeServer, run: Tulle) -> None:
    kube.fail("GET /apis/apps/v1/.*", refusal(403, "Forbidden", "no apps for you"))
    done = run("check", "-o", "json")
    (found,) = checks(done, "TUL1501")
    assert (found["result"], found["error"]) == ("warning", "not known: no apps for you")
    assert [each["result"] for each in checks(done, "TUL1502")] == ["warning"]


@pytest.mark.usefixtures("example_mesh")
def test_a_policy_changed_beside_its_gitops_owner(kube: KubeServer, run: Tulle) -> None:
    meta = {"name": "allow", "namespace": "default", "annotations": {}, "labels": ARGO}
    value = {"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy"}
    kube.put({**value, "metadata": meta, "spec": {"action": "ALLOW"}})
    (found,) = checks(run("check", "-o", "json"), "TUL1502")
    assert found["result"] == "warning"
    said = "AuthorizationPolicy default/allow of Argo CD: spec.action by test"
    assert found["error"].startswith(said)


@pytest.mark.usefixtures("example_mesh")
def test_our_own_objects_changed_by_hand(kube: KubeServer, run: Tulle) -> None:
    value = kube.get("apps/v1", "Deployment", "tulle-control", "tulle-system")
    assert value is not None
    kube.put({**value, "spec": {**value["spec"], "replicas": 7}})
    (found,) = checks(run("check", "-o", "json"), "TUL1502")
    said = "Deployment tulle-system/tulle-control of tulle-cli: spec.replicas by test"
    assert found["error"].startswith(said)


@pytest.mark.usefixtures("example_mesh")
def test_definitions_that_somebody_deleted_are_missed(kube: KubeServer, run: Tulle) -> None:
    (found,) = checks(run("check", "-o", "json"), "TUL1503")
    assert found["result"] == "ok"
    name = "peerauthentications.security.istio.io"
    kube.remove("apiextensions.k8s.io/v1", "CustomResourceDefinition", name)
    (found,) = checks(run("check", "-o", "json"), "TUL1503")
    assert found["result"] == "warning"
    assert "no PeerAuthentication: there are no such policies" in found["error"]


@pytest.mark.usefixtures("example_mesh")
def test_parts_with_another_trust_domain_are_told_while_they_run(
    kube: KubeServer, run: Tulle
) -> None:
    for name, domain in (("tulle-ztunnel-0", "old.local"), ("tulle-ztunnel-1", "new.local")):
        (found,) = checks(run("check", "-o", "json"), "TUL1504")
        assert found["result"] == "ok"
        pod = kube.get("v1", "Pod", name, "tulle-system")
        assert pod is not None
        container = {**pod["spec"]["containers"][0], "args": [f"--trust-domain={domain}"]}
        kube.put({**pod, "spec": {**pod["spec"], "containers": [container]}})
    (found,) = checks(run("check", "-o", "json"), "TUL1504")
    assert found["result"] == "warning"
    assert found["error"] == "new.local: tulle-ztunnel-1\nold.local: tulle-ztunnel-0"
