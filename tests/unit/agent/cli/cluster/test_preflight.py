from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agent.checks import host
from agent.cli.cluster import preflight
from agent.cli.cluster.facts import ClusterFacts, Named, Node, ServerVersion
from control.kube.errors import ApiError
from tests.support.kube.controllers import node


def facts(version: str = "v1.36.2", *nodes: dict[str, Any], **more: Any) -> ClusterFacts:
    found = [msgspec.convert(each, Node) for each in nodes or (node("kn1"), node("kn2"))]
    return ClusterFacts(
        ServerVersion(version),
        [],
        found,
        more.get("definitions", []),
        more.get("deployments", []),
        more.get("daemon_sets", []),
        more.get("unknown", []),
    )


def named(name: str, **labels: str) -> Named:
    meta = {"name": name, "namespace": "x", "labels": labels}
    return msgspec.convert({"metadata": meta}, Named)


def results(found: ClusterFacts, **more: Any) -> dict[str, str]:
    checks = preflight.checks(found, **more)
    return {each["code"]: each["result"] for each in checks if each["result"] != "ok"}


def test_a_good_cluster_has_only_good_checks() -> None:
    assert results(facts()) == {}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (facts("v1.27.9"), {"TUL1401": "error"}),
        (facts("v1.28.0-rc.1"), {}),
        (facts("?"), {"TUL1401": "error"}),
        (facts("v1.36.2", node("a", kernelVersion="5.4.1")), {"TUL1402": "error"}),
        (facts("v1.36.2", node("a", kernelVersion="5.4"), node("b")), {"TUL1402": "warning"}),
        (facts("v1.36.2", node("a", architecture="s390x"), node("b")), {"TUL1403": "warning"}),
        (
            facts(
                "v1.36.2",
                node("w", operatingSystem="windows", kernelVersion="10.0.20348"),
                node("b"),
            ),
            {},
        ),
        (
            facts("v1.36.2", node("a", containerRuntimeVersion="docker://20.1"), node("b")),
            {"TUL1404": "warning"},
        ),
        (facts("v1.36.2", node("gk3-a")), {"TUL1405": "error"}),
        (facts(daemon_sets=[named("ztunnel", app="ztunnel")]), {"TUL1406": "error"}),
        (facts(daemon_sets=[named("istio-cni-node")]), {"TUL1406": "error"}),
        (facts(daemon_sets=[named("x", **{"app.kubernetes.io/part-of": "tulle"})]), {}),
        (
            facts(definitions=[named("peerauthentications.security.istio.io")]),
            {"TUL1407": "warning"},
        ),
        (facts(unknown=["no list for you"]), {"TUL1409": "warning"}),
    ],
)
def test_each_trouble_has_its_code(found: ClusterFacts, expected: dict[str, str]) -> None:
    assert results(found) == expected


def test_a_missing_right_is_told() -> None:
    assert results(facts(), denied=["no right to patch x"]) == {"TUL1408": "error"}
    needed = ("patch", "apps", "daemonsets", "x")
    assert preflight.refused(needed, {"status": {"allowed": False}}) == (
        "no right to patch daemonsets.apps"
    )
    assert preflight.refused(needed, {"status": {"allowed": True}}) == ""
    assert preflight.refused(needed, ApiError(403, "Forbidden", "no")) == ""


def test_a_question_about_a_part_of_a_resource() -> None:
    asked = preflight.review("create", "", "pods/exec", "x")["spec"]["resourceAttributes"]
    assert (asked["resource"], asked["subresource"]) == ("pods", "exec")


def test_the_oldest_kernel_is_the_agents() -> None:
    assert preflight.KERNEL_MIN == host.KERNEL_MIN
