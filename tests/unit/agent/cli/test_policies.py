"""`tulle policies`: those in force on stdout, those not understood on stderr."""

from __future__ import annotations

from pathlib import Path

from agent.cli.mesh import MeshDump
from tests.unit.agent.cli.mesh_example import NOTE, example
from tests.unit.agent.cli.verbs import rows, run, save


def test_those_in_force(dump: str) -> None:
    result = run("policies", "-f", dump, "-o", "wide")
    assert rows(result) == [
        ["NAMESPACE", "POLICY", "KIND", "ACTION", "SCOPE", "RULES"],
        ["shop", "p", "AuthorizationPolicy", "Allow", "Namespace", "1"],
    ]
    assert result.stderr == ""
    assert run("policies", "-f", dump, "-n", "idle").stderr == "no policies\n"


def test_notes_are_of_policies_and_of_the_namespace_asked_for(tmp_path: Path) -> None:
    mesh = example()
    mesh.control["notes"] = [NOTE, {**NOTE, "object": "Service shop/s"}]
    told = "note: p.yaml:7: AuthorizationPolicy shop/p: the rule is dropped\n"
    assert run("policies", "-f", save(tmp_path, mesh)).stderr == told
    assert run("policies", "-n", "shop", "-f", save(tmp_path, mesh)).stderr == told
    assert "note" not in run("policies", "-n", "idle", "-f", save(tmp_path, mesh)).stderr


def test_those_not_understood_are_warned_of_and_other_objects_are_not(tmp_path: Path) -> None:
    mesh = example()
    mesh.control["problems"] = [
        {"file": "p.yaml", "line": 7, "object": "AuthorizationPolicy shop/p", "message": "bad"},
        {"file": "q.yaml", "line": 1, "object": "PeerAuthentication shop/q", "message": "odd"},
        {"file": "s.yaml", "line": 2, "object": "Service shop/s", "message": "no ports"},
    ]
    assert run("policies", "-f", save(tmp_path, mesh)).stderr == (
        "warning: p.yaml:7: AuthorizationPolicy shop/p: bad\n"
        "warning: q.yaml:1: PeerAuthentication shop/q: odd\n"
    )


def test_a_node_that_has_not_got_a_policy_yet_is_named(tmp_path: Path) -> None:
    mesh = example()
    accepted = {"kind": "AuthorizationPolicy", "namespace": "shop", "name": "p", "delivered": True}
    refused = {**accepted, "name": "refused", "delivered": False}
    strict = {**accepted, "kind": "PeerAuthentication", "name": "default"}
    mesh.control["policies"] = [accepted, refused, strict]
    assert run("policies", "-f", save(tmp_path, mesh)).stderr == ""
    mesh.nodes["n2"]["ztunnel"]["policies"] = []
    told = "warning: shop/p is not in force yet on n2\n"
    assert run("policies", "-f", save(tmp_path, mesh)).stderr == told
    assert "not in force" not in run("policies", "-n", "idle", "-f", save(tmp_path, mesh)).stderr


def made_of_peer_authentications() -> MeshDump:
    mesh = example()
    base = {"action": "Deny", "scope": "WorkloadSelector", "rules": [[]]}
    made = [
        {**base, "name": "istio_converted_static_strict", "namespace": "istio-system"},
        {**base, "name": "converted_peer_authentication_web", "namespace": "shop"},
    ]
    for node in mesh.nodes.values():
        node["ztunnel"]["policies"] = made
    return mesh


def test_what_was_made_of_peer_authentications_is_shown_as_these(tmp_path: Path) -> None:
    mesh = made_of_peer_authentications()
    base = {"kind": "PeerAuthentication", "namespace": "shop", "delivered": True}
    mesh.control["policies"] = [
        {**base, "name": "default", "scope": "NAMESPACE", "action": "STRICT"},
        {**base, "name": "web", "scope": "WORKLOAD_SELECTOR", "action": "PERMISSIVE"},
        {**base, "name": "second", "scope": "NAMESPACE", "delivered": False},
    ]
    assert rows(run("policies", "-f", save(tmp_path, mesh)))[1:] == [
        ["shop", "default", "PeerAuthentication", "Strict", "Namespace"],
        ["shop", "web", "PeerAuthentication", "Permissive", "WorkloadSelector"],
    ]


def test_without_the_control_planes_word_they_are_recognised_by_their_names(
    tmp_path: Path,
) -> None:
    found = rows(run("policies", "-f", save(tmp_path, made_of_peer_authentications())))
    assert [row[:3] for row in found[1:]] == [
        ["istio-system", "(STRICT)", "PeerAuthentication"],
        ["shop", "web", "PeerAuthentication"],
    ]


def test_a_message_cannot_move_the_cursor(tmp_path: Path) -> None:
    mesh = example()
    problem = {"object": "AuthorizationPolicy shop/p", "message": "\x1b[2Jgone"}
    mesh.control["problems"] = [problem]
    assert "\x1b" not in run("policies", "-f", save(tmp_path, mesh)).stderr


def test_pods_that_wait_for_a_policy_are_warned_of(tmp_path: Path) -> None:
    mesh = example()
    for state in mesh.nodes["n2"]["ztunnel"]["workloadState"].values():
        state["missingPolicies"] = ["shop/lost"]
    told = "warning: shop/b on n2 refuses connections: the control plane has not sent shop/lost\n"
    assert run("policies", "-f", save(tmp_path, mesh)).stderr == told
    assert "lost" not in run("policies", "-n", "idle", "-f", save(tmp_path, mesh)).stderr
    assert (
        "a policy that they name has not come: 1"
        in run("status", "-f", save(tmp_path, mesh)).stdout
    )
