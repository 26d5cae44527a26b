"""Removal, in an order that leaves every pod running: first the mesh lets all pods go, then the
nodes are cleaned by their agents, then the objects go."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from agent.cli.chart import release
from agent.cli.chart.release import NAMESPACE
from agent.cli.chart.settings import merged
from agent.cli.cluster import ending, install, pages, record, rollout, root_namespace
from agent.cli.cluster import facts as cluster_facts
from agent.cli.cluster.facts import DAEMON_SETS, DEPLOYMENTS, MANAGED_BY, PART_OF, ClusterFacts
from agent.cli.cluster.held import held
from agent.cli.cluster.objects import (
    Applied,
    Applier,
    Kinds,
    Object,
    ObjectRef,
    get_or_none,
    ref_of,
    remove,
)
from agent.cli.cluster.session import MANAGER, ClusterError, NoCluster
from control.kube.client import KubeClient
from control.kube.resources import CONFIG_MAPS, LEASES, NAMESPACES, PODS, TRUST_BUNDLES

ROOT = "tulle-ca-root-cert"
MODE_LABELS = ("tulle.io/dataplane-mode", "istio.io/dataplane-mode")
MARK = "tulle.io/redirection"
POLL_S = 1.0
NODES_SHOWN = 5
# Kinds that an uninstallation without --purge leaves: policies with their definitions, keys.
KEPT = frozenset({"Namespace", "CustomResourceDefinition"})
Told = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Removal:
    """`is_forced`: go on without nodes that do not answer."""

    is_purge: bool = False
    is_forced: bool = False
    timeout_s: float = 300.0


async def carry_out(client: KubeClient, removal: Removal, told: Told) -> None:
    """Safe to repeat: every step begins with what is still there."""
    facts = await cluster_facts.read(client)
    control = facts.control
    if control is not None and control.label(MANAGED_BY) == "Helm":
        raise ClusterError(
            "Tulle was installed by Helm: helm uninstall RELEASE --wait lets pods and nodes go "
            f"first (helm list -n {control.namespace} has the release)"
        )
    known = await record.read(client)
    settings = known.settings if known else {}
    here = [
        each.metadata.name for each in facts.daemon_sets if each.metadata.namespace == NAMESPACE
    ]
    if "tulle-agent" in here:
        objects = install.rendered(release.load(), merged(settings, {"uninstall": True}), facts)
        await _let_go(client, objects, removal, told, is_ours=known is not None)
    elif held := await _marked(client):
        if not removal.is_forced:
            raise ClusterError(f"{held}: `tulle install`, then uninstall again (--force goes on)")
        told(f"warning: going on: {held}")
    await _remove(client, set(known.refs) if known else set(), told)
    await _until(client, ending.pods, removal, told)
    await _roots(client, told)
    if removal.is_purge:
        await _purge(client, facts, told)
        await _until(client, ending.namespace, removal, told)
    elif await get_or_none(client, NAMESPACES.path(name=NAMESPACE)):
        told(f"kept: namespace {NAMESPACE} with the CA's key, definitions and policies (--purge)")


async def _let_go(
    client: KubeClient, objects: list[Object], removal: Removal, told: Told, *, is_ours: bool
) -> None:
    wanted = {(each["kind"], each["metadata"]["name"]): each for each in objects}
    steps = (
        ("the control plane lets all pods go", "Deployment", "tulle-control", _all_released),
        ("the agents clean their nodes", "DaemonSet", "tulle-agent", _agents_done),
    )
    for title, kind, name, is_done in steps:
        resource = DEPLOYMENTS if kind == "Deployment" else DAEMON_SETS
        there = await get_or_none(client, resource.path(NAMESPACE, name))
        if there is None or (kind == "Deployment" and await _is_begun(client)):
            continue
        told(f"{title} …")
        if is_ours:
            applier = Applier(client, force=True)
            await applier.apply([wanted[kind, name]], lambda _outcome: None)
        else:  # what another manager has put there, such as probes, would stay in an apply
            meta = {key: there["metadata"][key] for key in ("name", "namespace", "labels", "uid")}
            body = {**there, "metadata": meta, "spec": wanted[kind, name]["spec"]}
            path = resource.path(NAMESPACE, name)
            await client.put(path, body, Object, {"fieldManager": MANAGER})
        await _until(client, is_done, removal, told)


async def _marked(client: KubeClient) -> str:
    """Pods that are captured still, in words, when nobody is there to let them go."""
    every = await cluster_facts.list_all(client, PODS.path(), cluster_facts.Named)
    marked = [
        f"{each.metadata.namespace}/{each.metadata.name}"
        for each in every
        if (each.metadata.annotations or {}).get(MARK) == "enabled"
    ]
    if not marked:
        return ""
    return (
        f"{_pods(len(marked))} captured ({', '.join(sorted(marked)[:NODES_SHOWN])}"
        f"{', …' if len(marked) > NODES_SHOWN else ''}), and no agents are there to let go of them"
    )


async def _is_begun(client: KubeClient) -> bool:
    """An earlier try has told the agents already: they report no more."""
    value = await get_or_none(client, DAEMON_SETS.path(NAMESPACE, "tulle-agent")) or {}
    return " --uninstall" in str(value.get("spec"))


async def _until(client: KubeClient, is_done: Any, removal: Removal, told: Told) -> None:
    """Wait for an answer that is empty. The last one is told when the time is up."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + removal.timeout_s
    last = ""
    while missing := await is_done(client):
        if missing != last:
            told(missing)
        last = missing
        if loop.time() >= deadline:
            if removal.is_forced:
                told(f"warning: going on without it: {missing}")
                return
            raise ClusterError(
                f"after {removal.timeout_s:g} s: {missing} (repeat it, or --force goes on: "
                "nodes that did not answer keep their part)"
            )
        await asyncio.sleep(POLL_S)


async def _all_released(client: KubeClient) -> str:
    """Pods that the nodes have not let go of, in words."""
    control, *_ = await rollout.state(client)
    if not control.is_done:
        return str(control)
    try:
        found = await pages.read(client, ("agent",))
    except NoCluster:
        return ""
    left = held(
        pod
        for parts in found.nodes.values()
        for pod in (parts.get("agent") or {}).get("pods") or []
    )
    away = {name: why for name, why in found.away.items() if why != pages.NO_POD}
    silent = "; ".join(f"{name}: {why}" for name, why in sorted(away.items()))
    return "; ".join(each for each in (str(left), silent) if each)


async def _agents_done(client: KubeClient) -> str:
    """Nodes whose agent is not done, in words."""
    agents = (await rollout.state(client))[1]
    if agents.is_done:
        return ""
    pods = await _listed(client, PODS.path(NAMESPACE))
    late = [
        f"{each.node} ({each.why_not})"
        for each in (msgspec.convert(pod, pages.PartPod) for pod in pods)
        if each.part == "agent" and not each.is_ready
    ]
    more = [f"and {len(late) - NODES_SHOWN} more"] if len(late) > NODES_SHOWN else []
    return ": ".join([str(agents), *filter(None, [", ".join(sorted(late)[:NODES_SHOWN] + more)])])


async def _remove(client: KubeClient, known: set[ObjectRef], told: Told) -> None:
    """Agents and ztunnels first, and gone before the control plane; then everything else that is
    ours: by the record, and by label for what an interrupted installation left."""
    kinds = Kinds(client)
    daemons = {each for each in known if each.kind == "DaemonSet"}
    rest = {each for each in known if each.kind not in (*KEPT, "DaemonSet")}
    rest.add(ObjectRef(LEASES.api_version, LEASES.kind, NAMESPACE, pages.LEASE))
    for api_version, kind in _KINDS:
        resource = await kinds.find(api_version, kind)
        if resource is None:
            continue
        path = resource.path(NAMESPACE if resource.is_namespaced else "")
        found = {
            ref_of({"apiVersion": api_version, "kind": kind, **each})
            for each in await _listed(client, path)
        }
        if kind == "DaemonSet":
            daemons |= found
        else:
            rest |= found
    await remove(client, daemons, lambda outcome: told(f"{outcome.done} {outcome.ref}"))
    await remove(client, rest, lambda outcome: told(f"{outcome.done} {outcome.ref}"))


# Kinds that the chart makes, by which leftovers are found.
_KINDS = (
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "Deployment"),
    ("policy/v1", "PodDisruptionBudget"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "Service"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("v1", "ConfigMap"),
    ("v1", "ServiceAccount"),
    ("v1", "ResourceQuota"),
)


async def _listed(client: KubeClient, path: str) -> list[Object]:
    asked = {"labelSelector": f"{PART_OF}=tulle"}
    return await cluster_facts.list_all(client, path, dict[str, Any], asked)


async def _roots(client: KubeClient, told: Told) -> None:
    """The root certificate that the control plane published in each namespace."""
    asked = {"fieldSelector": f"metadata.name={ROOT}"}
    found = await cluster_facts.list_all(client, CONFIG_MAPS.path(), cluster_facts.Named, asked)
    refs = [ObjectRef("v1", "ConfigMap", each.metadata.namespace, ROOT) for each in found]
    if await Kinds(client).find(TRUST_BUNDLES.api_version, TRUST_BUNDLES.kind):
        refs.append(ObjectRef(TRUST_BUNDLES.api_version, TRUST_BUNDLES.kind, "", ROOT))
    await remove(client, refs, lambda outcome: told(f"{outcome.done} {outcome.ref}"))


async def _purge(client: KubeClient, facts: ClusterFacts, told: Told) -> None:
    """Labels of namespaces, our definitions with all policies, and the namespace with the keys."""
    for each in await cluster_facts.list_all(client, NAMESPACES.path(), cluster_facts.Named):
        found = [key for key in MODE_LABELS if each.metadata.label(key)]
        if found and each.metadata.name != NAMESPACE:
            body = {"metadata": {"labels": dict.fromkeys(found)}}
            path = NAMESPACES.path(name=each.metadata.name)
            await client.merge(path, body, Object, {"fieldManager": MANAGER})
            told(f"unlabelled Namespace {each.metadata.name}")
    api = "apiextensions.k8s.io/v1"
    refs = [
        ObjectRef(api, "CustomResourceDefinition", "", name) for name in facts.own_definitions()
    ]
    kept: list[Applied] = []
    if refs:  # otherwise policies of Istio's may be in it
        more, kept = await root_namespace.removable(client)
        refs += more
    refs.append(ObjectRef("v1", "Namespace", "", NAMESPACE))
    for outcome in kept:
        told(f"{outcome.done} {outcome.ref}")
    await remove(client, refs, lambda outcome: told(f"{outcome.done} {outcome.ref}"))


def _pods(count: int) -> str:
    return f"{count} pods are" if count != 1 else "1 pod is"
