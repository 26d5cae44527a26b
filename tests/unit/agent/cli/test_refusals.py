"""`tulle refusals`: the reason of a failed connection in one command, by either end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from agent.cli.mesh import MeshDump
from tests.unit.agent.cli.mesh_example import A, example, workload
from tests.unit.agent.cli.verbs import run, save

DENIED = {
    "direction": "inbound",
    "src": "10.71.1.2:40000",
    "dst": "10.72.1.2:80",
    "sourceWorkload": "shop/a",
    "destinationWorkload": "shop/b",
    "sourceIdentity": A,
    "service": "b.shop.svc.cluster.local",
    "responseFlags": "DENY",
    "error": "policy rejection: explicitly denied by shop/p",
    "meaning": "",
    "count": 3,
    "lastAt": "2026-11-22T11:59:50+00:00",
    "worker": 0,
}
NO_PORT = {
    **DENIED,
    "direction": "outbound",
    "dst": "172.20.0.10:81",
    "destinationWorkload": "",
    "error": "no_service_port",
    "meaning": "the service has no such port",
    "lastAt": "2026-11-22T11:59:58+00:00",
}


def refusing() -> MeshDump:
    mesh = example()
    mesh.nodes["n1"]["ztunnel"]["refused"] = [NO_PORT]
    mesh.nodes["n2"]["ztunnel"]["refused"] = [DENIED]
    in_kernel: dict[str, Any] = {"src": "10.70.0.9:5", "dst": "10.72.1.2:80", "count": 2}
    mesh.nodes["n2"]["agent"]["pods"][0]["refused"] = [{**in_kernel, "reason": "inbound_strict"}]
    return mesh


@pytest.fixture
def dump(tmp_path: Path) -> str:
    return save(tmp_path, refusing())


def test_the_newest_is_first_and_the_kernels_come_last(dump: str) -> None:
    _, *lines = run("refusals", "-f", dump).stdout.splitlines()
    newest, denied, kernel = [[cell for cell in line.split("  ") if cell] for line in lines]
    assert [each.strip() for each in newest[:3]] == ["2s", "3", "outbound"]
    assert newest[-1].strip() == "the service has no such port"
    assert denied[-1].strip() == "policy rejection: explicitly denied by shop/p"
    assert [each.strip() for each in kernel[:3]] == ["-", "2", "inbound"]
    assert "without an identity" in kernel[-1]


@pytest.mark.parametrize(
    ("pod", "errors"),
    [
        ("a", ["no_service_port", DENIED["error"]]),
        ("shop/b", [DENIED["error"], "inbound_strict"]),
    ],
)
def test_a_pod_is_found_at_either_end(dump: str, pod: str, errors: list[str]) -> None:
    found = json.loads(run("refusals", pod, "-f", dump, "-o", "json").stdout)
    assert [each["error"] for each in found] == errors


def test_a_sender_outside_the_mesh_has_a_name(tmp_path: Path) -> None:
    mesh = refusing()
    host = {**workload("proxy", "n9", "10.70.0.9"), "networkMode": "HostNetwork"}
    mesh.nodes["n1"]["ztunnel"]["workloads"].append(host)
    *_, last = json.loads(run("refusals", "-f", save(tmp_path, mesh), "-o", "json").stdout)
    assert (last["src"], last["src_address"]) == ("node n9", "10.70.0.9:5")


def test_a_mesh_without_any_says_so(tmp_path: Path) -> None:
    done = run("refusals", "-f", save(tmp_path, example()))
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "no connection failed\n")


@pytest.mark.parametrize("verb", ["refusals", "connections", "top"])
def test_nothing_is_said_of_a_part_that_was_not_heard(tmp_path: Path, verb: str) -> None:
    mesh = example()
    for parts in mesh.nodes.values():
        parts["ztunnel"]["workloadState"], parts["ztunnel"]["tenants"] = {}, []
    mesh.nodes["n2"]["ztunnel"] = None
    mesh.away["ztunnel-n2"] = "no answer in time"
    done = run(verb, "-f", save(tmp_path, mesh))
    assert done.exit_code == 2
    assert done.stderr.splitlines()[0].endswith(", as far as was heard")
