"""Names and virtual addresses that follow from the working copy."""

from __future__ import annotations

from typing import Any

import pytest

from agent.cli.manifests import Manifests, split
from agent.lab import objects, plan, services
from agent.lab.lab import Options, plan_lab
from agent.lab.objects import spec_from_annotations
from agent.lab.process import Launch, script
from agent.lab.spec import LabSpec, NodeSpec, PodSpec
from agent.lab.state import LabState, PodRecord, decode
from control.kit.errors import ConfigError

TEXT = """\
kind: Service
metadata: {name: web, namespace: a}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: http}, {port: 53, protocol: UDP}]}
---
kind: Service
metadata: {name: direct, namespace: a}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
kind: Service
metadata: {name: fixed, namespace: b}
spec: {clusterIP: 172.20.0.10, ports: [{port: 1}]}
---
kind: EndpointSlice
metadata: {name: fixed-1, namespace: b, labels: {kubernetes.io/service-name: fixed}}
ports: [{port: 7}]
endpoints: [{addresses: [10.1.1.1]}, {addresses: [10.1.1.2], conditions: {ready: false}}]
"""


def pod(name: str, ready: bool, number: int) -> dict[str, Any]:
    value = {
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "a", "labels": {"app": "web", "v": name}},
        "spec": {"containers": [{"ports": [{"name": "http", "containerPort": 8080}]}]},
    }
    address = plan.pod_address(1, [f"10.71.1.{one}" for one in range(2, number + 2)])
    return objects.placed(
        value, node="n1", host=plan.uplink(1), address=address, uid=name, ready=ready
    )


@pytest.fixture
def manifests() -> Manifests:
    found = Manifests({"x.yaml": split(TEXT, "x.yaml")})
    for number, (name, ready) in enumerate([("one", True), ("two", True), ("late", False)]):
        found.put(pod(name, ready, number), "pods.yaml")
    objects.allocate_services(found)
    return found


def test_cluster_ips_are_given_once_and_never_twice(manifests: Manifests) -> None:
    first = [objects.cluster_ips(item) for item in manifests.of_kind("Service")]
    assert first == [["172.20.0.11", "fd72::b"], [], ["172.20.0.10"]]
    assert objects.allocate_services(manifests) == set()


def test_only_ready_pods_are_behind_a_service(manifests: Manifests) -> None:
    found = {
        (item.address, item.protocol, item.port): item for item in services.virtuals(manifests)
    }
    assert found["172.20.0.11", "tcp", 80].endpoints == (("10.71.1.2", 8080), ("10.71.1.3", 8080))
    assert found["fd72::b", "tcp", 80].endpoints == (("fd71:1::2", 8080), ("fd71:1::3", 8080))
    assert found["172.20.0.11", "udp", 53].endpoints[0] == ("10.71.1.2", 53)
    assert found["172.20.0.10", "tcp", 1].endpoints == (("10.1.1.1", 7),)


def test_rules_choose_at_random_and_let_a_pod_reach_itself(manifests: Manifests) -> None:
    text = services.nft_text(services.virtuals(manifests))
    assert (
        "ip daddr 172.20.0.11 tcp dport 80 dnat ip to numgen random mod 2 map "
        "{ 0 : 10.71.1.2 . 8080, 1 : 10.71.1.3 . 8080 }" in text
    )
    assert "ip daddr 172.20.0.10 tcp dport 1 dnat ip to 10.1.1.1:7" in text
    assert "ct status dnat ip6 saddr fd71:1::2 ip6 daddr fd71:1::2 masquerade" in text
    assert "late" not in text


def test_hosts_have_short_names_only_in_the_same_namespace(manifests: Manifests) -> None:
    text = services.hosts_text(manifests, manifests.of_kind("Pod")[0])
    assert "10.71.1.2 one\n" in text
    assert "172.20.0.11 web.a.svc.cluster.local web.a.svc web.a web\n" in text
    assert "172.20.0.10 fixed.b.svc.cluster.local fixed.b.svc fixed.b\n" in text
    assert "10.71.1.3 direct.a.svc.cluster.local direct.a.svc direct.a direct\n" in text


def test_annotations_say_how_to_run_a_new_pod(tmp_path: Any) -> None:
    value = pod("new", False, 5)
    notes = {"tulle.io/lab-node": "n1", "tulle.io/lab-command": "sh -c 'a b'"}
    value["metadata"]["annotations"] = notes
    assert spec_from_annotations(value, ["n1"], tmp_path).command == ("sh", "-c", "a b")
    notes["tulle.io/lab-command"] = '["x", "y z"]'
    assert spec_from_annotations(value, ["n1"], tmp_path).command == ("x", "y z")
    for key, wrong in (("node", "n9"), ("command", ""), ("command", "["), ("ready-tcp", "web")):
        value["metadata"]["annotations"] = {**notes, f"tulle.io/lab-{key}": wrong}
        with pytest.raises(ConfigError, match=f"a/new: annotation tulle.io/lab-{key}"):
            spec_from_annotations(value, ["n1"], tmp_path)


def test_metadata_alone_keeps_a_pod_running() -> None:
    running = pod("one", True, 0)
    wanted = {"kind": "Pod", "metadata": {"name": "one", "labels": {"x": "y"}}}
    wanted["spec"] = {key: item for key, item in running["spec"].items() if key != "nodeName"}
    merged = objects.with_metadata(running, wanted)
    assert merged is not None
    assert merged["metadata"]["labels"] == {"x": "y"}
    assert (merged["metadata"]["uid"], merged["status"]) == ("one", running["status"])
    wanted["spec"] = {"containers": []}
    assert objects.with_metadata(running, wanted) is None


def test_every_pod_gets_names_and_an_address_of_its_own(tmp_path: Any) -> None:
    pods = tuple(PodSpec("a", f"p{number}", "n1", ("x",), "/") for number in range(300))
    state = plan_lab(LabSpec("u0", (NodeSpec("n1"),), pods), tmp_path, Options())
    assert len({record.address for record in state.pods.values()}) == 300
    assert len({record.link for record in state.pods.values()}) == 300
    assert state.pods["a/p7"].netns == "tl-u0-a-p7"
    assert state.namespaces()[-3:] == ["tl-u0-n1", "tl-u0-control", "tl-u0-router"]


def test_names_that_meet_are_refused(tmp_path: Any) -> None:
    pods = tuple(PodSpec(*names, "n1", ("x",), "/") for names in (("a", "b-c"), ("a-b", "c")))
    with pytest.raises(ConfigError, match="both be called tl-u0-a-b-c"):
        plan_lab(LabSpec("u0", (NodeSpec("n1"),), pods), tmp_path, Options())


def test_state_survives_the_disk() -> None:
    import json
    from dataclasses import asdict

    spec = PodSpec("a", "p", "n1", ("x", "y"), "/", {"A": "b"})
    record = PodRecord(spec, "u", "ns", "pod1", plan.Pair("1", "2"))
    state = LabState("l", "/f", False, 1, "/c", [plan.node_plan("l", "n1", 1)], {"a/p": record})
    assert decode(json.loads(json.dumps(asdict(state)))) == state


def test_the_launch_line_survives_odd_words(tmp_path: Any) -> None:
    launch = Launch(
        ("sh", "-c", 'echo "it\'s" $HOME'),
        "ns",
        tmp_path,
        {},
        "/a b",
        mounts=(("/h", "/etc/hosts"),),
    )
    text = script(launch)
    assert text.startswith(
        f"echo $$ > {tmp_path}/cgroup.procs && exec nsenter --net=/run/netns/ns -- unshare"
    )
    import shlex

    inner = shlex.split(text.partition("exec ")[2])[-1]
    assert shlex.split(inner.rpartition("exec ")[2]) == list(launch.command)
    assert "cd '/a b'" in inner
