"""The way out for Helm's hook: the parts are changed as they stand, and nothing is deleted."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from agent.cli.chart import release, settings
from agent.cli.cluster import leave
from tests.support.kube.controllers import Controllers
from tests.support.kube.server import KubeServer
from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods

PLACE = "tulle-system"
STATES = ("captured", "releasing", "not_enrolled", "pending")
SETTINGS = [
    (),
    ("profile=ha", "platform=openshift", "monitoring.podMonitor=true"),
    ("agent.extraArgs={--x=1}", "controlPlane.extraArgs={--y}", "mesh.alwaysTunnel=true"),
]


def part(words: tuple[str, ...], kind: str, name: str) -> dict[str, Any]:
    chart = release.load()
    found = chart.objects(settings.settings(chart, words))
    (value,) = (e for e in found if (e["kind"], e["metadata"]["name"]) == (kind, name))
    return value


@pytest.mark.parametrize("words", SETTINGS)
def test_the_parts_are_what_the_chart_makes_of_an_uninstallation(words: tuple[str, ...]) -> None:
    gone = (*words, "uninstall=true")
    control = leave.leaving_control(part(words, "Deployment", "tulle-control"))
    assert control == part(gone, "Deployment", "tulle-control")
    assert leave.leaving_control(copy.deepcopy(control)) == control
    agents = leave.leaving_agents(part(words, "DaemonSet", "tulle-agent"))
    assert agents == part(gone, "DaemonSet", "tulle-agent")
    assert leave.leaving_agents(copy.deepcopy(agents)) == agents


@pytest.fixture
def mesh(kube: KubeServer, controllers: Controllers, run: Tulle) -> MeshInPods:
    found = MeshInPods()
    kube.commands = found
    assert run("install").exit_code == 0
    kube.faults.requests.clear()
    return found


def changes(kube: KubeServer) -> list[str]:
    return [
        f"{each.method} {each.path.rpartition('/')[2]}"
        for each in kube.faults.requests
        if each.method in ("PUT", "PATCH", "DELETE")
    ]


def test_pods_leave_first_then_nodes_are_cleaned_and_all_objects_stay(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    done = run("uninstall", "--nodes", "--yes")
    assert done.exit_code == 0, done.stderr
    assert changes(kube) == ["PUT tulle-control", "PUT tulle-agent"]
    for kind, name, word in (
        ("Deployment", "tulle-control", "--release-all"),
        ("DaemonSet", "tulle-agent", " --uninstall"),
    ):
        assert word in str(kube.get("apps/v1", kind, name, PLACE))


def test_one_that_was_begun_is_carried_to_its_end(
    kube: KubeServer, mesh: MeshInPods, run: Tulle
) -> None:
    assert run("uninstall", "--nodes", "--yes").exit_code == 0
    mesh.silent |= {"tulle-agent-0", "tulle-agent-1"}  # `tulle-agent --uninstall` has no socket
    kube.faults.requests.clear()
    done = run("uninstall", "--nodes", "--yes")
    assert done.exit_code == 0, done.stderr
    assert changes(kube) == ["PUT tulle-agent"]


def test_what_does_not_answer_in_time_is_named_and_keeps_nothing_else(
    kube: KubeServer, mesh: MeshInPods, controllers: Controllers, run: Tulle
) -> None:
    pods = [{"namespace": "shop", "name": f"{n}", "state": s} for n, s in enumerate(STATES)]
    pods.append({"namespace": "shop", "name": "l", "state": "not_enrolled", "reason": "lingering"})
    mesh.nodes["kn1"] = {"agent": {"pods": pods}}
    controllers.hold("tulle-agent", "CreateContainerError", "no disk")
    done = run("uninstall", "--nodes", "--yes", "--timeout", "1s")
    assert done.exit_code == 0, done.stderr
    said = "2 pods are still captured; 1 pod is released, with time for open connections to end"
    assert f"warning: going on without it: kn1: {said}" in done.stderr
    assert "warning: going on without it: agents 0 of 2: kn1, kn2" in done.stderr


def test_without_agents_there_is_nobody_to_ask(kube: KubeServer, run: Tulle) -> None:
    done = run("uninstall", "--nodes", "--yes")
    assert done.exit_code == 0
    assert "no agents are there" in done.stderr


def test_objects_that_stay_and_a_purge_contradict_each_other(run: Tulle) -> None:
    done = run("uninstall", "--nodes", "--purge", "--yes")
    assert done.exit_code == 2
    assert "--purge" in done.stderr
