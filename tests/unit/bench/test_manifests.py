"""The objects that the benchmark puts in front of the control plane."""

from __future__ import annotations

import json
from pathlib import Path

from agent.cli.manifests import split
from agent.lab.spec import parse
from tests.bench import manifests


def test_the_lab_is_one_that_the_lab_takes(tmp_path: Path) -> None:
    spec = parse(json.dumps(manifests.lab_spec(tmp_path, ["python3", "serve.py"])), "lab.yaml")
    assert [node.name for node in spec.nodes] == [manifests.NODE_A, manifests.NODE_B]
    places = {pod.key: pod.node for pod in spec.pods}
    assert places["mesh/near"] == places["mesh/client"] == manifests.NODE_A
    assert places["mesh/server"] == manifests.NODE_B


def test_another_ztunnel_has_the_same_pods_and_policy_on_nodes_of_its_own(tmp_path: Path) -> None:
    written = manifests.lab_spec(tmp_path, ["python3", "serve.py"], ["/opt/ztunnel", "proxy"])
    spec = parse(json.dumps(written), "lab.yaml")
    commands = {node.name: node.ztunnel for node in spec.nodes}
    theirs = ("/opt/ztunnel", "proxy")
    assert (commands[manifests.NODE_C], commands[manifests.NODE_D]) == (theirs, theirs)
    assert (commands[manifests.NODE_A], commands[manifests.NODE_B]) == ((), ())
    places = {pod.key: pod.node for pod in spec.pods}
    assert places["foreign/near"] == places["foreign/client"] == manifests.NODE_C
    assert places["foreign/server"] == manifests.NODE_D
    text = [json.dumps(one, sort_keys=True) for one in manifests.objects(foreign=True)]
    mesh = {one for one in text if "mesh" in one}
    foreign = {one.replace("foreign", "mesh") for one in text if "foreign" in one}
    assert mesh == foreign


def test_both_namespaces_have_the_same_pods() -> None:
    kinds = [(one["kind"], one["metadata"]) for one in manifests.objects()]
    names = {
        where: {
            meta["name"] for kind, meta in kinds if kind == "Pod" and meta["namespace"] == where
        }
        for where in ("mesh", "plain")
    }
    assert names["mesh"] == names["plain"] == {"client", "near", "server"}


def test_only_one_of_them_is_enrolled() -> None:
    found = {
        one["metadata"]["name"]
        for one in manifests.objects()
        if one["kind"] == "Namespace" and one["metadata"]["labels"]
    }
    assert found == {"mesh"}


def test_a_push_has_every_pod_once_with_an_address_of_its_own() -> None:
    files = list(manifests.pushed_pods(4500))
    pods = [json.loads(each) for _, text in files for each in text.split("---\n")[1:]]
    assert len(files) == 3
    assert len({name for name, _ in files}) == 3
    assert len({pod["metadata"]["name"] for pod in pods}) == 4500
    assert len({pod["status"]["podIP"] for pod in pods}) == 4500


def test_many_rules_are_as_many_as_asked_for() -> None:
    policies = [one.value for one in split(manifests.many_rules(600), "rules.yaml")]
    assert sum(len(policy["spec"]["rules"]) for policy in policies) == 600
    assert all(len(policy["spec"]["rules"]) <= 512 for policy in policies)
    assert "ns/mesh/sa/client" not in manifests.many_rules(600)
