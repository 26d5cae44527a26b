"""The way out of the mesh before its objects go: pods first, then nodes. For Helm's hook.

The parts are changed as they stand, since a release's settings are Helm's alone. A test compares
with what the chart makes of `uninstall`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from agent.cli.cluster import rollout
from agent.cli.cluster.facts import DAEMON_SETS, DEPLOYMENTS, list_all
from agent.cli.cluster.held import held
from agent.cli.cluster.objects import Object, get_or_none
from agent.cli.cluster.pages import RUN_DIR, PartPod, dumped
from agent.cli.cluster.session import MANAGER
from control.kit.errors import MeshError
from control.kube.client import KubeClient
from control.kube.commands import run_in_pod
from control.kube.resources import PODS

POLL_S = 1.0
PAGE_S = 15.0
CONTROL, AGENT = "tulle-control", "tulle-agent"
RELEASE = "--release-all"
CLEAN = "tulle-agent --kubernetes --uninstall; touch /tmp/done; exec sleep infinity"
Told = Callable[[str], None]


def leaving_control(live: Object) -> Object:
    """The Deployment whose control plane lets all pods go."""
    (container,) = live["spec"]["template"]["spec"]["containers"]
    if RELEASE not in container["args"]:
        container["args"] = _with_release(container["args"])
    return live


def _with_release(args: list[str]) -> list[str]:
    """Before the flags that every installation has behind it."""
    at = next((n for n, each in enumerate(args) if each.startswith("--admin=")), len(args))
    return [*args[:at], RELEASE, *args[at:]]


def leaving_agents(live: Object) -> Object:
    """The DaemonSet whose agents clean their nodes, all at once, and wait."""
    spec = live["spec"]
    spec["updateStrategy"] = {"rollingUpdate": {"maxUnavailable": "100%"}}
    (container,) = spec["template"]["spec"]["containers"]
    for name in ("startupProbe", "livenessProbe", "ports"):
        container.pop(name, None)
    container["command"], container["args"] = ["sh", "-ec"], [CLEAN]
    done = {"command": ["test", "-e", "/tmp/done"]}
    container["readinessProbe"] = {"exec": done, "periodSeconds": 2}
    return live


async def carry_out(client: KubeClient, namespace: str, timeout_s: float, told: Told) -> None:
    """Safe to repeat. A node that does not answer in `timeout_s` keeps its part, and is named."""
    agents = await get_or_none(client, DAEMON_SETS.path(namespace, AGENT))
    if agents is None:
        told("no agents are there: no node is cleaned")
        return
    control = await get_or_none(client, DEPLOYMENTS.path(namespace, CONTROL))
    is_begun = CLEAN in str(agents.get("spec"))  # by an earlier try: they report no more
    if control is not None and not is_begun:
        told("the control plane lets all pods go …")
        await _put(client, DEPLOYMENTS.path(namespace, CONTROL), leaving_control(control))
        await _until(client, namespace, _held, timeout_s, told)
    told("the agents clean their nodes …")
    await _put(client, DAEMON_SETS.path(namespace, AGENT), leaving_agents(agents))
    await _until(client, namespace, _unclean, timeout_s, told)


async def _put(client: KubeClient, path: str, wanted: Object) -> None:
    """Unconditional: its controller writes its status in between."""
    kept = ("name", "namespace", "labels", "annotations", "uid")
    meta = {key: wanted["metadata"][key] for key in kept if key in wanted["metadata"]}
    body = {**wanted, "metadata": meta}
    await client.put(path, body, Object, {"fieldManager": MANAGER})


async def _until(
    client: KubeClient, namespace: str, left: Any, timeout_s: float, told: Told
) -> None:
    loop = asyncio.get_running_loop()
    deadline_s, last = loop.time() + timeout_s, ""
    while missing := await left(client, namespace):
        if loop.time() >= deadline_s:
            told(f"warning: going on without it: {missing}")
            return
        if missing != last:
            told(missing)
        last = missing
        await asyncio.sleep(POLL_S)


async def _agents(client: KubeClient, namespace: str) -> list[PartPod]:
    asked = {"labelSelector": f"app.kubernetes.io/name={AGENT}"}
    return await list_all(client, PODS.path(namespace), PartPod, asked)


async def _held(client: KubeClient, namespace: str) -> str:
    """Nodes that have not let go of all pods, in words."""
    control = (await rollout.state(client, namespace))[0]
    if not control.is_done:
        return str(control)
    pods = await _agents(client, namespace)
    async with asyncio.TaskGroup() as tasks:
        asked = [
            tasks.create_task(_held_on(client, namespace, each), name=f"leave.{each.node}")
            for each in pods
        ]
    return "; ".join(sorted(filter(None, (each.result() for each in asked))))


async def _held_on(client: KubeClient, namespace: str, pod: PartPod) -> str:
    if not pod.is_running:
        return f"{pod.node}: {pod.why_not}"
    command = ["tulle", f"--run-dir={RUN_DIR}", "dump", "--part=agent", f"--node={pod.node}"]
    name = pod.metadata.name
    try:
        found = dumped(await run_in_pod(client, namespace, name, "agent", command, PAGE_S))
    except MeshError as exc:
        return f"{pod.node}: its agent cannot be asked: {exc}"
    page = found["nodes"].get(pod.node, {}).get("agent") or {}
    words = str(held(page.get("pods") or []))
    return f"{pod.node}: {words}" if words else ""


async def _unclean(client: KubeClient, namespace: str) -> str:
    """Nodes whose agent is not done, in words."""
    agents = (await rollout.state(client, namespace))[1]
    if agents.is_done:
        return ""
    late = [each for each in await _agents(client, namespace) if not each.is_ready]
    return ": ".join(filter(None, [str(agents), ", ".join(sorted(each.node for each in late))]))
