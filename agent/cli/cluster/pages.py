"""The mesh's pages from a cluster: `tulle dump` in an agent's pod of each node and in one of the
control plane's, put together as from sockets of this host.

No port has to be open for it, and the API server's rights (pods/exec) say who may read.
"""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Collection, Iterable
from typing import Any

import msgspec

from agent.cli import shape
from agent.cli.chart.release import NAMESPACE
from agent.cli.cluster import facts
from agent.cli.cluster.facts import NAME, PART_OF, ObjectMeta
from agent.cli.cluster.objects import get_or_none
from agent.cli.cluster.rollout import trouble
from agent.cli.cluster.session import NoCluster
from control.kit.choices import absent
from control.kit.errors import ConfigError, MeshError
from control.kube.client import KubeClient
from control.kube.commands import Ended, run_in_pod
from control.kube.errors import ApiError
from control.kube.resources import LEASES, NAMESPACES, NODES, PODS

NO_POD = "no pod of the agent on this node"
PODS_AT_ONCE = 32  # commands that run side by side; each is a Python process of a moment
RUN_DIR = "/run/tulle"
LEASE = "tulle-control"

Json = dict[str, Any]


class PartPod(msgspec.Struct):
    """A pod of ours; `spec` and `status` as they came."""

    metadata: ObjectMeta
    spec: Json = {}
    status: Json = {}

    @property
    def node(self) -> str:
        return str(self.spec.get("nodeName") or "")

    @property
    def part(self) -> str:
        """agent, ztunnel or control."""
        return self.metadata.label(NAME).removeprefix("tulle-")

    @property
    def is_ready(self) -> bool:
        conditions = self.status.get("conditions") or []
        return any(
            each.get("type") == "Ready" and each.get("status") == "True" for each in conditions
        )

    @property
    def is_running(self) -> bool:
        states = self.status.get("containerStatuses") or []
        return any("running" in (each.get("state") or {}) for each in states)

    @property
    def is_over(self) -> bool:
        return self.status.get("phase") in ("Succeeded", "Failed")

    @property
    def why_not(self) -> str:
        """Reason for which nothing can be asked there."""
        value = {"metadata": {}, "spec": self.spec, "status": self.status}
        return trouble(value) or f"its pod is {self.status.get('phase') or 'not seen by a kubelet'}"


class ClusterPages(msgspec.Struct):
    """Answers of all pods that were asked; `away`: process → reason."""

    nodes: dict[str, Json]
    control: Json
    labels: dict[str, Json]
    errors: list[str]
    away: dict[str, str]


async def own_pods(client: KubeClient) -> list[PartPod]:
    """Raises NoCluster without any: then Tulle is not installed."""
    asked = {"labelSelector": f"{PART_OF}=tulle"}
    found = await facts.list_all(client, PODS.path(), PartPod, asked)
    if not found:
        raise NoCluster(f"no pod of Tulle in cluster {client.access.name}: tulle install")
    return found


def best(pods: Iterable[PartPod]) -> PartPod | None:
    """The pod to ask of several: a ready one, else one that runs at all, else one that may yet."""

    def rank(pod: PartPod) -> tuple[bool, bool, bool, str]:
        return pod.is_ready, pod.is_running, not pod.is_over, pod.metadata.name

    return max(pods, key=rank, default=None)


def speaker_of(pods: Iterable[PartPod], node: str) -> PartPod | None:
    """The pod to ask on a node: the agent's; while that is replaced the ztunnel's, which has the
    same folder of sockets. None: no agent belongs there."""
    here = [each for each in pods if each.node == node]
    agent = best(each for each in here if each.part == "agent")
    if agent is None or agent.is_running:
        return agent
    ztunnel = best(each for each in here if each.part == "ztunnel")
    return ztunnel if ztunnel is not None and ztunnel.is_running else agent


async def read(
    client: KubeClient, parts: Collection[str], node: str = "", timeout_s: float = 30.0
) -> ClusterPages:
    """`parts` as for a host: agent, check, ztunnel, logging, control."""
    pods = await own_pods(client)
    agents = {
        name: chosen
        for name in sorted({each.node for each in pods if each.part == "agent" and each.node})
        if (chosen := speaker_of(pods, name))
    }
    if node and node not in agents:
        raise ConfigError(absent("node", node, agents) + " (those with an agent)")
    wanted = {node: agents[node]} if node else agents
    found = ClusterPages({name: {} for name in wanted}, {}, {}, [], {})
    order: list[str] = []  # pods of the control plane, leader first
    gate = asyncio.Semaphore(PODS_AT_ONCE)

    async def one(kind: str, pod: PartPod, name: str) -> None:
        async with gate:
            await _ask(client, found, kind, pod, name, parts, timeout_s)

    async with asyncio.TaskGroup() as tasks:
        if set(parts) - {"control", "labels"}:
            for name, pod in wanted.items():
                tasks.create_task(one("agent", pod, name), name=f"pages.{name}")
        if "control" in parts:
            speakers = await _speakers(client, [each for each in pods if each.part == "control"])
            order += [each.metadata.name for each in speakers]
            if not speakers:
                _miss(found, ["control"], "its Deployment has no pod")
            for pod in speakers:
                tasks.create_task(one("control", pod, ""), name=f"pages.{pod.metadata.name}")
            tasks.create_task(_labels(client, found, parts), name="pages.labels")
        if not node:
            tasks.create_task(_nodes_without(client, found), name="pages.nodes")
    if found.control:  # one of several is enough; the others' errors are told
        found.away.pop("control", None)
    pages = [found.control[name] for name in order if name in found.control]
    found.control = functools.reduce(joined, pages, {})
    return found


async def _speakers(client: KubeClient, pods: list[PartPod]) -> list[PartPod]:
    """The control plane's pods to ask: each knows only the nodes that are connected
    to it. The leader comes first."""
    namespace = pods[0].metadata.namespace if pods else NAMESPACE
    try:
        lease = await get_or_none(client, LEASES.path(namespace, LEASE)) or {}
    except ApiError:
        lease = {}
    holder = str((lease.get("spec") or {}).get("holderIdentity") or "")
    well = [each for each in pods if each.is_ready] or [each for each in [best(pods)] if each]
    return sorted(well, key=lambda each: each.metadata.name != holder.partition("_")[0])


def joined(first: Json, other: Json) -> Json:
    """The control plane's pages by one replica, with the nodes of another."""
    if not first.get("status"):
        return first or other
    rows = [row for each in (other, first) for row in (each.get("status") or {}).get("nodes") or []]
    nodes = {str(row.get("node")): row for row in rows}
    return {
        **first,
        "status": {**first["status"], "nodes": [nodes[each] for each in sorted(nodes)]},
    }


async def _ask(
    client: KubeClient,
    found: ClusterPages,
    kind: str,
    pod: PartPod,
    node: str,
    parts: Collection[str],
    timeout_s: float,
) -> None:
    asked = ["control"] if kind == "control" else sorted(set(parts) - {"control", "labels"})
    missed = ["control"] if kind == "control" else _processes(node, parts)
    if not pod.is_running:
        _miss(found, missed, f"{pod.metadata.name}: {pod.why_not}")
        return
    command = ["tulle", f"--run-dir={RUN_DIR}", "dump", f"--timeout={timeout_s:g}s"]
    command += [f"--part={each}" for each in asked]
    command += [f"--node={node}"] if node else []
    where = (pod.metadata.namespace, pod.metadata.name, pod.part)
    try:
        value = dumped(await run_in_pod(client, *where, command, 2 * timeout_s + 10))
    except MeshError as exc:
        _miss(found, missed, f"{pod.metadata.name}: {exc}")
        return
    if node:
        found.nodes[node] = (value.get("nodes") or {}).get(node) or {}
    else:
        found.control[pod.metadata.name] = value.get("control") or {}
    found.errors += [str(each) for each in value.get("errors") or []]
    found.away.update({name: str(why) for name, why in (value.get("away") or {}).items()})


def dumped(ended: Ended) -> Json:
    """The dump that a command wrote. ConfigError, in its own last words, if it did not."""
    try:
        value = json.loads(ended.output)
    except (ValueError, RecursionError) as exc:
        said = ended.errors.splitlines()[-1] if ended.errors else str(exc)
        raise ConfigError(f"no dump, exit code {ended.code}: {said}") from exc
    if not isinstance(value, dict):
        raise ConfigError("no dump: not an object")
    shape.check_dump(value, "its answer")
    return value


def _processes(node: str, parts: Collection[str]) -> list[str]:
    kinds = ["agent"] if {"agent", "check", "logging"} & set(parts) else []
    kinds += ["ztunnel"] if {"ztunnel", "logging"} & set(parts) else []
    return [f"{kind}-{node}" for kind in kinds]


def _miss(found: ClusterPages, names: Iterable[str], why: str) -> None:
    for name in names:
        found.away[name] = why
        found.errors.append(f"{name}: {why}")


async def _labels(client: KubeClient, found: ClusterPages, parts: Collection[str]) -> None:
    """Labels of namespaces, and of pods where they are wanted; without the right to list them they
    are not known."""
    try:
        for name, resource in (("namespace", NAMESPACES), ("pod", PODS)):
            if name == "namespace" or "labels" in parts:
                listed = await facts.list_all(client, resource.path(), facts.Named)
                metas = [each.metadata for each in listed]
                found.labels[name] = {_key(each): each.labels or {} for each in metas}
    except ApiError as exc:
        if exc.code != 403:
            raise
        found.errors.append(f"labels are not known: {exc.message}")


def _key(meta: ObjectMeta) -> str:
    return f"{meta.namespace}/{meta.name}" if meta.namespace else meta.name


async def _nodes_without(client: KubeClient, found: ClusterPages) -> None:
    """Linux nodes on which no agent runs are missed, like an agent that does not answer."""
    try:
        nodes = await facts.list_all(client, NODES.path(), facts.Node)
    except ApiError as exc:
        if exc.code != 403:
            raise
        return
    for each in nodes:
        if each.about.operating_system in ("", "linux") and each.name not in found.nodes:
            found.nodes[each.name] = {}
            _miss(found, [f"agent-{each.name}"], NO_POD)
