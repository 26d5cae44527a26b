"""Changes to a lab: the objects and processes that they mean."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.cli.manifests import Ref, split
from agent.lab import changes, plan
from agent.lab.lab import Lab
from agent.lab.manifests import Manifests
from agent.lab.process import Process
from agent.lab.state import LabState
from control.kit.errors import ConfigError

TEXT = """\
kind: Namespace
metadata: {name: shop}
---
kind: Service
metadata: {name: web, namespace: shop}
---
kind: Service
metadata: {name: web, namespace: other}
"""


def test_a_namespace_goes_last_and_no_object_twice() -> None:
    manifests = Manifests({"x.yaml": split(TEXT, "x.yaml")})
    namespace, web = Ref("Namespace", "", "shop"), Ref("Service", "shop", "web")
    assert changes._with_contents(manifests, [namespace]) == [web, namespace]
    assert changes._with_contents(manifests, [web, namespace]) == [web, namespace]


@pytest.mark.parametrize(
    ("kind", "plural"),
    [
        ("Pod", "pods"),
        ("AuthorizationPolicy", "authorizationpolicies"),
        ("Ingress", "ingresses"),
    ],
)
def test_a_kind_may_be_said_in_the_plural(kind: str, plural: str) -> None:
    assert changes._spellings(kind) == (kind.lower(), plural)


def test_processes_are_those_of_one_node_or_of_all() -> None:
    nodes = [plan.node_plan("x", name, index) for index, name in enumerate(("n1", "n2"), 1)]
    state = LabState("x", "/f", False, 1, "/c", nodes)
    state.processes = dict.fromkeys(("control", "agent-n1", "agent-n2"), Process(1, 1))
    assert changes.process_names(state, "control", None) == ["control"]
    assert changes.process_names(state, "agent", None) == ["agent-n1", "agent-n2"]
    assert changes.process_names(state, "agent", "n2") == ["agent-n2"]
    with pytest.raises(ConfigError, match="of no node: leave n1 out"):
        changes.process_names(state, "control", "n1")
    with pytest.raises(ConfigError, match="has no ztunnel-n1, ztunnel-n2"):
        changes.process_names(state, "ztunnel", None)


def test_a_service_that_is_applied_again_keeps_its_address() -> None:
    old = {"kind": "Service", "spec": {"clusterIP": "172.20.0.9", "clusterIPs": ["172.20.0.9"]}}
    new = {"kind": "Service", "spec": {"ports": [{"port": 80}]}}
    merged = changes._with_old_addresses(new, old)
    assert merged["spec"] == {**new["spec"], **old["spec"]}
    headless = {"kind": "Service", "spec": {"clusterIP": "None"}}
    assert changes._with_old_addresses(headless, old) is headless


def test_a_pod_without_a_node_leaves_the_others_of_its_file_alone(tmp_path: Path) -> None:
    lab = Lab(tmp_path)
    nodes = [plan.node_plan("x", "n1", 1)]
    lab.store.save(LabState("x", "/f", False, 1, "/c", nodes))
    lab.manifests_folder.mkdir()
    pod = "---\nkind: Pod\nmetadata: {name: late, namespace: shop}\n"
    with pytest.raises(ConfigError, match="must name one of n1"):
        changes.apply(lab, TEXT + pod, "standard input")
    assert list(lab.manifests_folder.iterdir()) == []
