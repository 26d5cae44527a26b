"""The namespace of the mesh's own policies, which an installation makes where there is none: taken
away by a purge, unless somebody has put something into it."""

from __future__ import annotations

from agent.cli.chart.release import NAMESPACE
from agent.cli.cluster import facts
from agent.cli.cluster.facts import PART_OF
from agent.cli.cluster.objects import Applied, ObjectRef
from control.kube.client import KubeClient
from control.kube.resources import CONFIG_MAPS, NAMESPACES, PODS, SECRETS, SERVICES

LOOKED_AT = (PODS, SERVICES, SECRETS, CONFIG_MAPS)
# Published into each namespace by Kubernetes, Istio and us.
EVERYWHERE = frozenset({"kube-root-ca.crt", "istio-ca-root-cert", "tulle-ca-root-cert"})


async def removable(client: KubeClient) -> tuple[list[ObjectRef], list[Applied]]:
    """Those that may go, and those that are kept, with the reason."""
    asked = {"labelSelector": f"{PART_OF}=tulle"}
    gone, kept = [], []
    for each in await facts.list_all(client, NAMESPACES.path(), facts.Named, asked):
        name = each.metadata.name
        if name == NAMESPACE:
            continue
        ref = ObjectRef("v1", "Namespace", "", name)
        if held := await _held(client, name):
            kept.append(Applied(ref, f"kept, as {held} is in it:"))
        else:
            gone.append(ref)
    return gone, kept


async def _held(client: KubeClient, namespace: str) -> str:
    for kind in LOOKED_AT:
        for each in await facts.list_all(client, kind.path(namespace), facts.Named):
            if each.metadata.name not in EVERYWHERE:
                return f"{kind.kind} {each.metadata.name}"
    return ""
