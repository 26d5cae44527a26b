"""Progress of the installation's Deployment and DaemonSets, until all run what was asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

from agent.cli.chart.release import NAMESPACE
from agent.cli.cluster.facts import DAEMON_SETS, DEPLOYMENTS, PART_OF
from agent.cli.cluster.objects import Object, get_or_none
from control.kit.errors import MeshError
from control.kube.client import KubeClient
from control.kube.errors import ApiError, Unreachable
from control.kube.resources import PODS

POLL_S = 1.0
PODS_SHOWN = 5
MESSAGE_CHARS_MAX = 200
PARTS = (
    ("control plane", DEPLOYMENTS, "tulle-control"),
    ("agents", DAEMON_SETS, "tulle-agent"),
    ("ztunnels", DAEMON_SETS, "tulle-ztunnel"),
)


class NotReady(MeshError):
    """The time is up, and not all parts run."""

    reason: ClassVar[str] = "not_ready"


@dataclass(frozen=True, slots=True)
class Part:
    """The number of a part's pods are ready in the form that was asked for."""

    title: str
    ready: int = 0
    wanted: int = 0
    is_done: bool = False
    is_there: bool = True

    def __str__(self) -> str:
        counts = f"{self.ready} of {self.wanted}" if self.is_there else "not there"
        return f"{self.title} {counts}"


def deployment(title: str, value: Object) -> Part:
    spec, status = value.get("spec") or {}, value.get("status") or {}
    wanted = spec.get("replicas", 1)
    updated, ready = status.get("updatedReplicas", 0), status.get("availableReplicas", 0)
    is_done = _is_seen(value) and updated == wanted == ready and status.get("replicas", 0) == wanted
    return Part(title, min(updated, ready), wanted, is_done)


def daemon_set(title: str, value: Object) -> Part:
    status = value.get("status") or {}
    wanted = status.get("desiredNumberScheduled", 0)
    updated, ready = status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0)
    return Part(title, min(updated, ready), wanted, _is_seen(value) and updated == wanted == ready)


def _is_seen(value: Object) -> bool:
    """The controller has read what was written last."""
    wanted = value["metadata"].get("generation", 0)
    return bool((value.get("status") or {}).get("observedGeneration", 0) >= wanted)


async def state(client: KubeClient, namespace: str = NAMESPACE) -> list[Part]:
    """Each part; one that is not there is not done."""
    found = []
    for title, resource, name in PARTS:
        value = await get_or_none(client, resource.path(namespace, name))
        judge = deployment if resource is DEPLOYMENTS else daemon_set
        found.append(Part(title, is_there=False) if value is None else judge(title, value))
    return found


async def wait(client: KubeClient, timeout_s: float, told: Callable[[str], None]) -> None:
    """Until all parts are done; progress and troubles are told when they change. NotReady names the
    pods that hold it up. An API server that goes away meanwhile is waited for."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + timeout_s
    last: list[str] = []
    while True:
        lines = last
        try:
            parts = await state(client)
            if all(each.is_done for each in parts):
                told(", ".join(map(str, parts)))
                return
            stuck = troubles(await _pods(client))
            lines = [", ".join(map(str, parts)), *stuck]
        except (Unreachable, ApiError) as exc:
            if isinstance(exc, ApiError) and exc.code < 500 and exc.code != 429:
                raise
            lines = [f"the API server does not answer: {exc}"]
        for line in lines:
            if line not in last:
                told(line)
        last = lines
        if loop.time() >= deadline:
            raise NotReady(f"not ready after {timeout_s:g} s: {'; '.join(lines)}")
        await asyncio.sleep(min(POLL_S, max(deadline - loop.time(), 0.0)))


async def _pods(client: KubeClient) -> list[Object]:
    asked = {"labelSelector": f"{PART_OF}=tulle", "limit": "500"}
    page = await client.get(PODS.path(NAMESPACE), dict[str, Any], asked)
    return list(page.get("items") or [])


def troubles(pods: Iterable[Object]) -> list[str]:
    """Pods that do not get on, and why; the first ones."""
    found = []
    for pod in pods:
        if why := trouble(pod):
            meta, node = pod["metadata"], (pod.get("spec") or {}).get("nodeName")
            found.append(f"{meta['name']}{f' on {node}' if node else ''}: {why}")
    more = [f"… and {len(found) - PODS_SHOWN} more pods"] if len(found) > PODS_SHOWN else []
    return sorted(found)[:PODS_SHOWN] + more


_PATIENCE = frozenset({"ContainerCreating", "PodInitializing"})


def trouble(pod: Object) -> str:
    """Reason for which a pod does not run; empty while it is on its way."""
    status = pod.get("status") or {}
    for each in status.get("conditions") or []:
        if each.get("type") == "PodScheduled" and each.get("status") == "False":
            return _said(each)
    containers = [
        *(status.get("initContainerStatuses") or []),
        *(status.get("containerStatuses") or []),
    ]
    for each in containers:
        waiting = (each.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in _PATIENCE:
            ended = (each.get("lastState") or {}).get("terminated") or {}
            code = f", exit code {ended['exitCode']}" if "exitCode" in ended else ""
            return f"container {each.get('name')}: {_said(waiting)}{code}"
    return _said(status) if status.get("phase") == "Failed" else ""


def _said(value: Object) -> str:
    message = " ".join(str(value.get("message") or "").split())[:MESSAGE_CHARS_MAX]
    reason = str(value.get("reason") or "")
    return f"{reason}: {message}" if reason and message else reason or message or "no reason given"
