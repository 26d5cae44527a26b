"""Checks of a cluster: before an installation, and those that only the API server can answer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from agent.checks.check import Result, judged
from agent.cli.cluster import facts, hands, install, preflight, rollout
from agent.cli.cluster.facts import DAEMON_SETS, DEPLOYMENTS, PART_OF
from agent.cli.cluster.objects import Kinds
from agent.cli.cluster.pages import PartPod, own_pods
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import (
    AUTHORIZATION_POLICIES,
    NAMESPACES,
    PEER_AUTHENTICATIONS,
    Resource,
)

CATEGORY = "installation"
OBJECTS_MAX = 20  # told one by one
_DOMAIN = "--trust-domain="  # as the chart writes it

Check = dict[str, Any]
Object = dict[str, Any]


async def before(client: KubeClient) -> list[Check]:
    """`tulle check --pre`: may Tulle be installed here?"""
    return preflight.checks(await facts.read(client), await install.rights(client))


async def installed(client: KubeClient) -> list[Check]:
    """The parts' progress, and objects that were changed beside their owner."""
    pods = await own_pods(client)
    namespace = pods[0].metadata.namespace
    domain = _trust_domain(pods)
    title = "every part runs, in the form that was asked for"
    try:
        parts = await rollout.state(client, namespace)
    except ApiError as exc:
        if exc.code != 403:
            raise
        said = f"not known: {exc.message}"
        unknown = judged("TUL1501", CATEGORY, title, error=said, level=Result.WARNING)
        return [unknown.as_json(), domain, *await _by_hand(client)]
    waiting = [str(each) for each in parts if not each.is_done]
    stuck = rollout.troubles(
        {"metadata": {"name": each.metadata.name}, "spec": each.spec, "status": each.status}
        for each in pods
    )
    progress = judged(
        "TUL1501",
        CATEGORY,
        title,
        error="\n".join([", ".join(waiting), *stuck]) if waiting else "",
        hint=f"kubectl -n {namespace} describe pods; kubectl -n {namespace} logs POD",
    )
    return [progress.as_json(), domain, await _definitions(client), *await _by_hand(client)]


def _trust_domain(pods: Sequence[PartPod]) -> Check:
    """While a changed one is rolled out, pods are refused by those that have the other one."""
    found: dict[str, list[str]] = {}
    for pod in pods:
        for container in [] if pod.is_over else pod.spec.get("containers") or []:
            for word in container.get("args") or []:
                if str(word).startswith(_DOMAIN):
                    found.setdefault(str(word)[len(_DOMAIN) :], []).append(pod.metadata.name)
    told = [f"{domain}: {', '.join(sorted(names))}" for domain, names in sorted(found.items())]
    return judged(
        "TUL1504",
        CATEGORY,
        "all parts have one trust domain",
        error="\n".join(told) if len(told) > 1 else "",
        hint="pods refuse each other until all control planes and ztunnels are replaced",
        level=Result.WARNING,
    ).as_json()


async def _definitions(client: KubeClient) -> Check:
    """Without one its policies are gone, and nobody can write others."""
    kinds = Kinds(client)
    missing = [
        each.kind
        for each in (AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS)
        if await kinds.find(each.api_version, each.kind) is None
    ]
    return judged(
        "TUL1503",
        CATEGORY,
        "the definitions of policies are there",
        error=f"the cluster has no {' and no '.join(missing)}: there are no such policies, "
        "and none is enforced"
        if missing
        else "",
        hint="tulle install; helm upgrade; kubectl apply -k daemonset/manifests/crds",
        level=Result.WARNING,
    ).as_json()


async def _by_hand(client: KubeClient) -> list[Check]:
    """A warning for each object that somebody changed beside the tool that owns it."""
    title = "objects are as their owner (GitOps, Helm, tulle) made them"
    try:
        found = [
            f"{resource.kind} {_name(each)} of {hands.owner_of(each)}: {said}"
            for resource, each in await _owned(client)
            for said in hands.changes(each)
        ]
    except ApiError as exc:
        if exc.code != 403:
            raise
        found = [f"not known: {exc.message}"]
    more = [f"… and {len(found) - OBJECTS_MAX} more"] if len(found) > OBJECTS_MAX else []
    return [
        judged(
            "TUL1502",
            CATEGORY,
            title,
            error=said,
            hint="make the change where the owner has it, or its next run undoes it",
            level=Result.WARNING,
        ).as_json()
        for said in (*found[:OBJECTS_MAX], *more) or ("",)
    ]


async def _owned(client: KubeClient) -> list[tuple[Resource, Object]]:
    """Objects of the mesh and of the installation, with their managed fields."""
    kinds = Kinds(client)
    found: list[tuple[Resource, Object]] = []
    for resource in (AUTHORIZATION_POLICIES, PEER_AUTHENTICATIONS):
        if await kinds.find(resource.api_version, resource.kind):
            found += await _listed(client, resource, {})
    found += await _listed(client, NAMESPACES, {})
    for resource in (DEPLOYMENTS, DAEMON_SETS):
        found += await _listed(client, resource, {"labelSelector": f"{PART_OF}=tulle"})
    return found


async def _listed(
    client: KubeClient, resource: Resource, asked: dict[str, str]
) -> Iterable[tuple[Resource, Object]]:
    values = await facts.list_all(client, resource.path(), dict[str, Any], asked)
    return [(resource, each) for each in values]


def _name(value: Object) -> str:
    meta = value["metadata"]
    return f"{meta['namespace']}/{meta['name']}" if meta.get("namespace") else str(meta["name"])
