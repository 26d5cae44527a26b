"""Read commands on a cluster: the same output as of a dump of the same mesh."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.cli.cluster.facts import ObjectMeta
from agent.cli.cluster.pages import PartPod, best, joined
from tests.support.kube.controllers import Controllers, node
from tests.support.kube.server import KubeServer
from tests.support.kube.status import refusal
from tests.unit.agent.cli.cluster.conftest import Tulle
from tests.unit.agent.cli.cluster.mesh_in_pods import MeshInPods
from tests.unit.agent.cli.mesh_example import example
from tests.unit.agent.cli.verbs import save

VERBS = [
    "status",
    "workloads",
    "services",
    "policies",
    "certificates",
    "connections",
    "top",
    "refusals",
]


def timeless(text: str) -> list[str]:
    """Without what depends on the time of the answer."""
    return [
        line for line in text.splitlines() if not re.search(r'"(age|last|valid|ends_in)"', line)
    ]


@pytest.mark.parametrize("verb", [*VERBS, "maps", "namespace list", "log level"])
def test_the_output_is_that_of_a_host(
    example_mesh: MeshInPods, run: Tulle, tmp_path: Path, verb: str
) -> None:
    there = run(*verb.split(), "-o", "json")
    here = run(*verb.split(), "-o", "json", "-f", save(tmp_path, example()))
    assert there.exit_code == here.exit_code == 0, there.stderr
    if verb not in ("status", "namespace list"):  # the cluster has more namespaces
        assert timeless(there.stdout) == timeless(here.stdout)
    assert "shop" in there.stdout or verb in ("maps", "log level", "refusals")


def test_only_the_pages_that_are_needed_are_asked_for(example_mesh: MeshInPods, run: Tulle) -> None:
    assert run("connections", "--node", "n2").exit_code == 0
    (command,) = example_mesh.asked
    assert command.pod.startswith("tulle-agent")
    assert command.container == "agent"
    assert command.words[:3] == ("tulle", "--run-dir=/run/tulle", "dump")
    assert set(command.words[4:]) == {"--part=ztunnel", "--node=n2"}


def test_a_silent_pod_is_told_and_the_rest_is_shown(example_mesh: MeshInPods, run: Tulle) -> None:
    example_mesh.silent.add("tulle-agent-1")
    done = run("connections")
    assert done.exit_code == 2
    assert "ztunnel-n2: tulle-agent-1: no dump, exit code 2: error: no socket here" in done.stderr
    assert "incomplete, without the answer of ztunnel-n2" in done.stderr
    assert done.stdout.count("\n") > 1


def test_a_node_without_an_agent_is_missed(
    kube: KubeServer, example_mesh: MeshInPods, run: Tulle
) -> None:
    kube.put(node("n3"))
    kube.put(node("w1", operatingSystem="windows"))
    done = run("status")
    assert done.exit_code == 2
    assert "agent-n3: no pod of the agent on this node" in done.stderr
    assert "w1" not in done.stderr


def test_a_node_that_is_not_there_is_refused(example_mesh: MeshInPods, run: Tulle) -> None:
    done = run("connections", "--node", "n9")
    assert done.exit_code == 2
    assert "no node 'n9'; there are: n1, n2 (those with an agent)" in done.stderr


def test_a_missing_right_to_exec_is_told(
    kube: KubeServer, example_mesh: MeshInPods, run: Tulle
) -> None:
    def refuse(_command: object) -> None:
        raise refusal(403, "Forbidden", "no pods/exec")

    kube.commands = refuse  # type: ignore[assignment]  # never answers
    done = run("connections")
    assert done.exit_code == 2
    assert "403 Forbidden" in done.stderr


def test_pods_by_their_labels(kube: KubeServer, example_mesh: MeshInPods, run: Tulle) -> None:
    meta = {"name": "a", "namespace": "shop", "labels": {"app": "a"}}
    kube.put({"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}})
    assert "shop/a" in run("workloads", "-l", "app=a", "-o", "name").stdout
    assert run("workloads", "-l", "app=b", "-o", "name").stdout == ""


def test_a_cluster_without_tulle_says_how_to_get_it(run: Tulle) -> None:
    done = run("status")
    assert done.exit_code == 2
    assert "no pod of Tulle in cluster small: tulle install" in done.stderr


def test_a_dump_of_a_cluster_reads_like_one_of_a_host(
    example_mesh: MeshInPods, run: Tulle, tmp_path: Path
) -> None:
    path = tmp_path / "mesh.json"
    assert run("dump", "-o", str(path)).exit_code == 0
    assert run("connections", "-f", str(path)).stdout == run("connections").stdout


def test_while_an_agent_is_replaced_its_ztunnels_pod_answers(
    controllers: Controllers, example_mesh: MeshInPods, run: Tulle
) -> None:
    controllers.hold("tulle-agent", "ContainerCreating")
    assert run("install", "--no-wait", "--set", "agent.drain=3s").exit_code == 0
    assert run("connections").exit_code == 0
    assert {each.container for each in example_mesh.asked} == {"ztunnel"}


def pod(name: str, *, ready: bool, running: bool) -> PartPod:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}]
    states = [{"name": "agent", "state": {"running": {}} if running else {}}]
    status = {"conditions": conditions, "containerStatuses": states}
    return PartPod(ObjectMeta(name), status=status)


def test_of_several_pods_the_one_that_is_well_is_asked() -> None:
    old, new = pod("a", ready=True, running=True), pod("b", ready=False, running=True)
    dead = pod("c", ready=False, running=False)
    assert best([dead, new, old]) is old
    assert best([dead, new]) is new
    ended = pod("z", ready=False, running=False)
    ended.status["phase"] = "Succeeded"
    assert best([ended, dead]) is dead
    assert best([]) is None


def test_nodes_of_every_replica_are_shown() -> None:
    first = {"status": {"version": "1", "nodes": [{"node": "n2"}]}, "pods": [1]}
    other = {"status": {"version": "2", "nodes": [{"node": "n1"}, {"node": "n2", "old": True}]}}
    assert joined(first, other) == {
        "status": {"version": "1", "nodes": [{"node": "n1"}, {"node": "n2"}]},
        "pods": [1],
    }
    assert joined({}, other) == other


def test_one_replica_that_answers_is_enough(example_mesh: MeshInPods, run: Tulle) -> None:
    example_mesh.silent.add("tulle-control-0")
    done = run("policies")
    assert done.exit_code == 0, done.stderr
    assert "tulle-control-0: no dump" in done.stderr
    example_mesh.silent.add("tulle-control-1")
    assert run("policies").exit_code == 2
