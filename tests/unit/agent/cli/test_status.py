"""`tulle status`: parts, namespaces, pods that are not captured, manifests not understood."""

from __future__ import annotations

import json
from pathlib import Path

from agent.cli import health
from tests.unit.agent.cli.mesh_example import NOTE, example
from tests.unit.agent.cli.verbs import run, save


def test_parts_namespaces_and_pods_that_are_not_captured(dump: str) -> None:
    result = run("status", "-f", dump)
    assert result.exit_code == 0
    parts, namespaces, missing = result.stdout.split("\n\n")
    assert [line.split()[0] for line in parts.splitlines()[1:]] == [
        "control",
        "agent",
        "ztunnel",
        "agent",
        "ztunnel",
    ]
    assert ["shop", "ambient", "2", "1"] in [line.split() for line in namespaces.splitlines()]
    assert missing.startswith("Not captured:\n")
    assert health.REASONS["no_ztunnel"] in missing


def test_pods_on_their_way_out_have_a_list_of_their_own(tmp_path: Path) -> None:
    mesh = example()
    pod = mesh.nodes["n2"]["agent"]["pods"][0]
    pod.update(state="releasing", reason="releasing")
    text = run("status", "-f", save(tmp_path, mesh)).stdout
    assert "Leaving the mesh:\n" in text
    assert health.REASONS["releasing"] in text
    assert "Not captured:" not in text


def test_what_is_not_understood_has_its_place(tmp_path: Path) -> None:
    mesh = example()
    mesh.control["problems"] = [
        {"file": "p.yaml", "line": 7, "object": "AuthorizationPolicy shop/p", "message": "bad"}
    ]
    text = run("status", "-f", save(tmp_path, mesh)).stdout
    assert "Problems in manifests:\n  p.yaml:7: AuthorizationPolicy shop/p: bad\n" in text


def test_what_is_not_enforced_as_written_is_told_beside_what_is_broken(tmp_path: Path) -> None:
    mesh = example()
    mesh.control["problems"] = [{**NOTE, "object": "Pod shop/x", "message": "bad"}]
    mesh.control["notes"] = [NOTE]
    text = run("status", "-f", save(tmp_path, mesh)).stdout
    assert "Problems in manifests:\n  p.yaml:7: Pod shop/x: bad\n" in text
    told = "Not as written:\n  p.yaml:7: AuthorizationPolicy shop/p: the rule is dropped\n"
    assert text.endswith(told)


def test_a_part_that_is_away_makes_it_fail_and_its_pods_are_missed(tmp_path: Path) -> None:
    mesh = example()
    del mesh.nodes["n2"]["agent"]
    for shape in ("table", "json", "name"):
        result = run("status", "-f", save(tmp_path, mesh), "-o", shape)
        assert result.exit_code == 2
        assert result.stdout
    result = run("status", "-f", save(tmp_path, mesh))
    assert "warning: CAPTURED " in result.stderr
    assert "n2" in result.stderr
    assert "without the answer of agent-n2" in result.stderr


def test_a_capture_that_does_not_hold_is_told(tmp_path: Path) -> None:
    mesh = example()
    assert "Lost in the kernel" not in run("status", "-f", save(tmp_path, mesh)).stdout
    mesh.nodes["n2"]["agent"]["kernel"] = {"standing": ["u1: pod_link_lost (link)"]}
    text = run("status", "-f", save(tmp_path, mesh)).stdout
    assert "Lost in the kernel, again and again:\n  n2: u1: pod_link_lost (link)\n" in text


def test_json_has_the_six_parts(dump: str) -> None:
    value = json.loads(run("status", "-f", dump, "-o", "json").stdout)
    parts = {"components", "namespaces", "not_captured", "lost_in_kernel", "problems", "notes"}
    assert value.keys() == parts
