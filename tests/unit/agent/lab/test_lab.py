"""Names and addresses of a whole lab, planned before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.lab.lab import Options, plan_lab, read_folder
from agent.lab.spec import LabSpec, NodeSpec, PodSpec
from control.kit.errors import ConfigError


def test_every_pod_gets_names_and_an_address_of_its_own(tmp_path: Path) -> None:
    pods = tuple(PodSpec("a", f"p{number}", "n1", ("x",), "/") for number in range(300))
    state = plan_lab(LabSpec("u0", (NodeSpec("n1"),), pods), tmp_path, Options())
    assert len({record.address for record in state.pods.values()}) == 300
    assert len({record.link for record in state.pods.values()}) == 300
    assert state.pods["a/p7"].netns == "tl-u0-a-p7"
    assert state.namespaces()[-3:] == ["tl-u0-n1", "tl-u0-control", "tl-u0-router"]


def test_names_that_meet_are_refused(tmp_path: Path) -> None:
    pods = tuple(PodSpec(*names, "n1", ("x",), "/") for names in (("a", "b-c"), ("a-b", "c")))
    with pytest.raises(ConfigError, match="both be called tl-u0-a-b-c"):
        plan_lab(LabSpec("u0", (NodeSpec("n1"),), pods), tmp_path, Options())


def test_a_folder_is_read_and_its_pods_spread(tmp_path: Path) -> None:
    (tmp_path / "lab.yaml").write_text(
        "name: x\nnodes: {here: {}}\npods:\n"
        "  a/one: {node: here, command: [x]}\n  a/two: {node: here, command: [x]}\n"
    )
    (tmp_path / "pods.yaml").write_text(
        "kind: Pod\nmetadata: {name: one, namespace: a}\n"
        "---\nkind: Pod\nmetadata: {name: two, namespace: a}\n"
    )
    spec, manifests = read_folder(tmp_path, 0)
    assert [pod.node for pod in spec.pods] == ["here", "here"]
    assert len(manifests.of_kind("Pod")) == 2
    spec, _ = read_folder(tmp_path, 2)
    assert [pod.node for pod in spec.pods] == ["n1", "n2"]
    with pytest.raises(ConfigError, match="is not a folder"):
        read_folder(tmp_path / "absent", 0)
