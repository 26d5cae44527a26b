"""The end of what was deleted: what is still on its way, in words."""

from __future__ import annotations

from typing import Any

from agent.cli.chart.release import NAMESPACE
from agent.cli.cluster.facts import PART_OF, list_all
from agent.cli.cluster.objects import get_or_none
from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import NAMESPACES, PODS

GRACE_S = 30  # more than a ztunnel takes by itself, where no other has come (drainAlone)


async def namespace(client: KubeClient) -> str:
    """The namespace while it is being emptied."""
    found = await get_or_none(client, NAMESPACES.path(name=NAMESPACE))
    if found is None:
        return ""
    conditions = (found.get("status") or {}).get("conditions") or []
    held = [each.get("message", "") for each in conditions if each.get("status") == "True"]
    return ": ".join([f"namespace {NAMESPACE} is ending", *filter(None, held)])


async def pods(client: KubeClient) -> str:
    """Our pods that still run. A ztunnel that drains for its successor gets less time than it has:
    no pod is in the mesh any more, and where the agent was replaced, too, nobody tells it so."""
    asked = {"labelSelector": f"{PART_OF}=tulle"}
    try:
        left = await list_all(client, PODS.path(NAMESPACE), dict[str, Any], asked)
    except ApiError as exc:
        if exc.code != 404:
            raise
        return ""
    for each in left:
        await _hurry(client, each["metadata"])
    count = f"{len(left)} pods are" if len(left) != 1 else "1 pod is"
    return f"of Tulle {count} still ending" if left else ""


async def _hurry(client: KubeClient, meta: dict[str, Any]) -> None:
    if meta.get("deletionGracePeriodSeconds", 0) <= GRACE_S:
        return
    try:
        await client.delete(PODS.path(NAMESPACE, meta["name"]), uid=meta["uid"], grace_s=GRACE_S)
    except ApiError as exc:
        if exc.code not in (404, 409):  # it has ended by now
            raise
