"""`tulle check --pre` of a cluster: may Tulle be installed here? Pure: decided on facts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from agent.checks.check import Result, judged
from agent.cli.cluster.facts import PART_OF, ClusterFacts, Node, ObjectMeta
from agent.cli.cluster.platform import is_autopilot
from control.kube.errors import ApiError
from control.kube.resources import CRDS

KUBERNETES_MIN = (1, 28)  # server-side apply, EndpointSlices, pod security labels as we use them
KERNEL_MIN = (5, 15)  # as the agent's own check has it
ARCHITECTURES = frozenset({"amd64", "arm64"})
RUNTIMES = ("containerd://", "cri-o://")
NAMES_SHOWN = 5
# Istio's parts that would claim the pods that we claim, by their label `app` or their name.
AMBIENT = frozenset({"ztunnel", "istio-cni-node"})
CATEGORY = "cluster"

Check = dict[str, Any]


def checks(facts: ClusterFacts, denied: Iterable[str] = ()) -> list[Check]:
    """`denied`: rights for an installation that this user does not have."""
    found = [
        judged(
            "TUL1401",
            CATEGORY,
            "the cluster's version is supported",
            error=_old(facts),
            hint="upgrade the cluster",
        ),
        _nodes("TUL1402", "the kernel of every node is 5.15 or newer", facts.nodes, _bad_kernel),
        _nodes(
            "TUL1403", "every node is of a kind that the image is made for", facts.nodes, _alien
        ),
        _nodes("TUL1404", "every node's container runtime is known", facts.nodes, _bad_runtime),
        judged(
            "TUL1405",
            CATEGORY,
            "the cluster admits DaemonSets with host access",
            error="the nodes are GKE Autopilot's" if is_autopilot(facts.nodes) else "",
            hint="use GKE Standard",
        ),
        judged(
            "TUL1406",
            CATEGORY,
            "no other mesh claims pods",
            error=_other_mesh(facts),
            hint="uninstall it first: two meshes must not capture the same pods",
        ),
        _definitions(facts),
        judged(
            "TUL1408",
            CATEGORY,
            "this user may install",
            error="; ".join(denied),
            hint="ask for cluster-admin, or let somebody install who has it",
        ),
    ]
    return [each.as_json() for each in found] + _unread(facts)


def _numbers(text: str) -> tuple[int, int]:
    found = re.search(r"(\d+)\.(\d+)", text)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _old(facts: ClusterFacts) -> str:
    version = facts.version.git_version
    if _numbers(version) >= KUBERNETES_MIN:
        return ""
    return f"it is {version or 'not known'}; 1.28 is the oldest"


def _nodes(code: str, title: str, nodes: list[Node], bad: Any) -> Any:
    wrong = [f"{each.name}: {said}" for each in nodes if (said := bad(each))]
    more = f" and {len(wrong) - NAMES_SHOWN} more" if len(wrong) > NAMES_SHOWN else ""
    return judged(
        code,
        CATEGORY,
        title,
        error="; ".join(wrong[:NAMES_SHOWN]) + more,
        hint="keep pods of the mesh off these nodes, or exclude them by scheduling.nodeSelector",
        level=Result.ERROR if len(wrong) == len(nodes) else Result.WARNING,
    )


def _bad_kernel(node: Node) -> str:
    kernel = node.about.kernel_version
    if node.about.operating_system not in ("", "linux") or not kernel:
        return ""
    return "" if _numbers(kernel) >= KERNEL_MIN else kernel


def _alien(node: Node) -> str:
    system, architecture = node.about.operating_system, node.about.architecture
    if system not in ("", "linux"):
        return ""  # our DaemonSets do not go there
    return "" if architecture in ARCHITECTURES or not architecture else architecture


def _bad_runtime(node: Node) -> str:
    runtime = node.about.container_runtime_version
    return "" if not runtime or runtime.startswith(RUNTIMES) else runtime


def _other_mesh(facts: ClusterFacts) -> str:
    sets = [each.metadata for each in facts.daemon_sets]
    found = [
        f"{each.namespace}/{each.name}"
        for each in sets
        if (each.name in AMBIENT or each.label("app") in AMBIENT or each.name == "linkerd-cni")
        and each.label(PART_OF) != "tulle"
    ]
    return f"DaemonSets of Istio ambient or Linkerd are here: {', '.join(found)}" if found else ""


def _definitions(facts: ClusterFacts) -> Any:
    names = [
        f"{each}.security.istio.io" for each in ("authorizationpolicies", "peerauthentications")
    ]
    others = [name for name in names if _is_others(facts.find(CRDS.kind, name))]
    istiod = [each.metadata for each in facts.deployments if each.metadata.label("app") == "istiod"]
    error = ""
    if others:
        error = f"{', '.join(others)}: somebody else's, and left alone"
        if istiod:
            error += (
                f"; Istio's control plane {istiod[0].namespace}/{istiod[0].name} reads them too"
            )
    return judged(
        "TUL1407",
        CATEGORY,
        "the definitions of policies are ours to make",
        error=error,
        hint="policies then hold for both meshes; nothing has to be done",
        level=Result.WARNING,
    )


def _is_others(meta: ObjectMeta | None) -> bool:
    return meta is not None and meta.label(PART_OF) != "tulle"


def _unread(facts: ClusterFacts) -> list[Check]:
    return [
        judged(
            "TUL1409",
            CATEGORY,
            "the checks could be made",
            error=said,
            hint="the checks above leave out what could not be read",
            level=Result.WARNING,
        ).as_json()
        for said in facts.unknown
    ]


# Rights whose absence would stop an installation half way: verb, group, resource, namespace.
NEEDED = (
    ("patch", "", "namespaces", ""),
    ("patch", "apiextensions.k8s.io", "customresourcedefinitions", ""),
    ("patch", "rbac.authorization.k8s.io", "clusterroles", ""),
    ("patch", "rbac.authorization.k8s.io", "clusterrolebindings", ""),
    ("patch", "apps", "daemonsets", "tulle-system"),
    ("patch", "apps", "deployments", "tulle-system"),
    ("create", "", "pods/exec", "tulle-system"),
)


def review(verb: str, group: str, resource: str, namespace: str) -> dict[str, Any]:
    """The question to the API server, as a SelfSubjectAccessReview."""
    name, _, sub = resource.partition("/")
    asked = {"verb": verb, "group": group, "resource": name, "subresource": sub}
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": {**asked, "namespace": namespace}},
    }


def refused(needed: tuple[str, str, str, str], answer: dict[str, Any] | ApiError) -> str:
    """The right that is missing, in words; empty if it is there or nobody can say."""
    if isinstance(answer, ApiError) or (answer.get("status") or {}).get("allowed", True):
        return ""
    verb, group, resource, _ = needed
    return f"no right to {verb} {resource}{f'.{group}' if group else ''}"
