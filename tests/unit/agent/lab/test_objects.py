"""Objects as a scheduler, a kubelet and a service allocator would fill them in."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.manifests import split
from agent.lab import objects, plan
from agent.lab.manifests import Manifests
from agent.lab.objects import spec_from_annotations
from agent.lab.spec import NodeSpec, parse
from control.kit.errors import ConfigError
from tests.unit.agent.lab.example import placed_pod

SPEC = "name: x\nnodes: {n1: {}}\npods:\n  shop/web: {node: n1, command: [true_]}\n"
POD = "kind: Pod\nmetadata: {name: web, namespace: shop}\n"
SERVICES = """\
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
kind: Service
metadata: {name: direct, namespace: a}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
kind: Service
metadata: {name: fixed, namespace: b}
spec: {clusterIP: 172.20.0.10, ports: [{port: 1}]}
---
kind: Service
metadata: {name: outside, namespace: b}
spec: {type: ExternalName, externalName: example.org}
"""


def test_cluster_ips_are_given_once_and_never_twice() -> None:
    manifests = Manifests({"x.yaml": split(SERVICES, "x.yaml")})
    assert objects.allocate_services(manifests) == {"x.yaml"}
    found = [objects.cluster_ips(item) for item in manifests.of_kind("Service")]
    assert found == [["172.20.0.11", "fd72::b"], [], ["172.20.0.10"], []]
    assert objects.allocate_services(manifests) == set()


def test_a_node_is_in_its_zone() -> None:
    value = objects.node_object(NodeSpec("n1", zone="eu-1", region="eu"), plan.uplink(1))
    assert value["metadata"]["labels"] == {
        "kubernetes.io/hostname": "n1",
        "topology.kubernetes.io/region": "eu",
        "topology.kubernetes.io/zone": "eu-1",
    }
    assert [item["address"] for item in value["status"]["addresses"]] == [
        "10.70.1.1",
        "fd70:0:1::1",
    ]
    bare = objects.node_object(NodeSpec("n1"), plan.uplink(1))
    assert list(bare["metadata"]["labels"]) == ["kubernetes.io/hostname"]


def test_a_pod_becomes_ready_without_a_change_in_place() -> None:
    waiting = placed_pod("one", False, 0)
    ready = objects.with_ready(waiting, True)
    assert (objects.is_ready(waiting), objects.is_ready(ready)) == (False, True)
    assert objects.addresses(ready) == ["10.71.1.2", "fd71:1::2"]
    assert objects.is_ready({}) is False
    assert objects.addresses({}) == []


def test_pods_must_be_in_both_places() -> None:
    spec = parse(SPEC, "lab.yaml")
    manifests = Manifests({"x.yaml": split(POD, "x.yaml")})
    objects.check_pods(spec, manifests)
    with pytest.raises(ConfigError, match=r"x\.yaml:1: Pod shop/web is not in lab\.yaml"):
        objects.check_pods(parse("name: x\nnodes: {n1: {}}\n", "lab.yaml"), manifests)
    with pytest.raises(ConfigError, match=r"lab\.yaml: shop/web is in no manifest"):
        objects.check_pods(spec, Manifests())
    manifests.files["y.yaml"] = split(POD, "y.yaml")
    with pytest.raises(ConfigError, match=r"y\.yaml:1: Pod shop/web is also in x\.yaml:1"):
        objects.check_pods(spec, manifests)


def test_a_pod_on_the_hosts_network_is_refused() -> None:
    manifests = Manifests({"x.yaml": split(POD + "spec: {hostNetwork: true}\n", "x.yaml")})
    with pytest.raises(ConfigError, match="no hostNetwork in a lab"):
        objects.check_pods(parse(SPEC, "lab.yaml"), manifests)


def test_annotations_say_how_to_run_a_new_pod(tmp_path: Path) -> None:
    value = placed_pod("new", False, 5)
    notes = {"tulle.io/lab-node": "n1", "tulle.io/lab-command": "sh -c 'a b'"}
    value["metadata"]["annotations"] = notes
    assert spec_from_annotations(value, ["n1"], tmp_path).command == ("sh", "-c", "a b")
    notes["tulle.io/lab-command"] = '["x", "y z"]'
    assert spec_from_annotations(value, ["n1"], tmp_path).command == ("x", "y z")
    for key, wrong in (("node", "n9"), ("command", ""), ("command", "["), ("ready-tcp", "web")):
        value["metadata"]["annotations"] = {**notes, f"tulle.io/lab-{key}": wrong}
        with pytest.raises(ConfigError, match=f"a/new: annotation tulle.io/lab-{key}"):
            spec_from_annotations(value, ["n1"], tmp_path)


def test_a_waypoint_is_its_gateways_by_label_and_account(tmp_path: Path) -> None:
    value = split(POD, "x")[0].value
    notes = {"tulle.io/lab-node": "n1", "tulle.io/lab-waypoint": "gate"}
    value["metadata"] |= {"annotations": notes, "labels": {objects.GATEWAY_LABEL: "gate"}}
    with pytest.raises(ConfigError, match="its account is 'default', not 'gate'"):
        spec_from_annotations(value, ["n1"], tmp_path)
    value["spec"] = {"serviceAccountName": "gate"}
    spec = spec_from_annotations(value, ["n1"], tmp_path)
    assert (spec.waypoint, spec.command) == ("gate", ())
    value["metadata"]["labels"] = {}
    with pytest.raises(ConfigError, match="gateway-name is None, not 'gate'"):
        spec_from_annotations(value, ["n1"], tmp_path)
    notes["tulle.io/lab-command"] = "sleep 1"
    with pytest.raises(ConfigError, match="one of both"):
        spec_from_annotations(value, ["n1"], tmp_path)


def test_lab_yaml_is_held_to_it_too() -> None:
    spec = parse(SPEC.replace("command: [true_]", "waypoint: gate"), "lab.yaml")
    with pytest.raises(ConfigError, match=r"Pod shop/web: .*gateway-name is None"):
        objects.check_pods(spec, Manifests({"x.yaml": split(POD, "x.yaml")}))


def test_metadata_alone_keeps_a_pod_running() -> None:
    running = placed_pod("one", True, 0)
    wanted = {"kind": "Pod", "metadata": {"name": "one", "labels": {"x": "y"}}}
    wanted["spec"] = {key: item for key, item in running["spec"].items() if key != "nodeName"}
    merged = objects.with_metadata(running, wanted)
    assert merged is not None
    assert merged["metadata"]["labels"] == {"x": "y"}
    assert (merged["metadata"]["uid"], merged["status"]) == ("one", running["status"])
    wanted["spec"] = {"containers": []}
    assert objects.with_metadata(running, wanted) is None
