"""Log levels of a cluster's processes, set in their pods by the `tulle` that is there."""

from __future__ import annotations

import asyncio

from agent.cli.cluster.pages import PODS_AT_ONCE, RUN_DIR, PartPod, best, own_pods
from agent.cli.cluster.session import ClusterError
from control.kit.choices import absent
from control.kit.errors import ConfigError, MeshError
from control.kube.client import KubeClient
from control.kube.commands import run_in_pod


async def set_level(
    client: KubeClient, node: str, level: str, component: str | None, timeout_s: float
) -> None:
    """In every process of the node, of all nodes and the control plane without one, or in those of
    a component. ClusterError names those in which it was not set."""
    pods = await own_pods(client)
    nodes = sorted({each.node for each in pods if each.part == "agent"})
    if node and node not in nodes:
        raise ConfigError(absent("node", node, nodes))
    chosen: list[tuple[PartPod, list[str]]] = []
    if component != "control":
        for name in [node] if node else nodes:
            if pod := best(each for each in pods if each.part == "agent" and each.node == name):
                more = [f"--component={component}"] if component else []
                chosen.append((pod, [name, level, *more]))
    if not node and component in (None, "control"):
        speakers = [each for each in pods if each.part == "control"]
        chosen += [(each, ["-", level, "--component=control"]) for each in speakers]
    gate = asyncio.Semaphore(PODS_AT_ONCE)
    failed: list[str] = []

    async def one(pod: PartPod, words: list[str]) -> None:
        command = ["tulle", f"--run-dir={RUN_DIR}", "log", "level", *words]
        where = (pod.metadata.namespace, pod.metadata.name, pod.part)
        async with gate:
            try:
                ended = await run_in_pod(client, *where, command, timeout_s + 10)
            except MeshError as exc:
                failed.append(f"{pod.metadata.name}: {exc}")
                return
        if ended.code:
            said = ended.errors.splitlines()[-1] if ended.errors else f"exit code {ended.code}"
            failed.append(f"{pod.metadata.name}: {said}")

    async with asyncio.TaskGroup() as tasks:
        for pod, words in chosen:
            tasks.create_task(one(pod, words), name=f"level.{pod.metadata.name}")
    if failed or not chosen:
        done = f"set in {len(chosen) - len(failed)} of {len(chosen)} pods"
        raise ClusterError("; ".join([done, *sorted(failed)]))
