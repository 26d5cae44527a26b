"""Takes ztunnels that drain out of the count of their DaemonSet, once another serves their node.

A DaemonSet counts the oldest pod of each node until it is gone. So `kubectl rollout status`, Helm
and `tulle upgrade` would wait for the last open connection of the old ztunnel, which may take
minutes. With another name in its label the pod is nobody's; it ends as it would have.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from control.kube.client import KubeClient
from control.kube.errors import ApiError
from control.kube.resources import PODS
from control.server.leader.ledger import Target, WriteLedger
from control.server.sources.objects import PodObject

LABEL: Final = "app.kubernetes.io/name"
SERVING: Final = "tulle-ztunnel"  # as the chart's selectors have it
DRAINING: Final = "tulle-ztunnel-draining"


def outlived(pods: Iterable[PodObject], namespace: str) -> Mapping[Target, str]:
    """Ztunnels that are being deleted, on nodes where another one is ready."""
    ours = [
        each
        for each in pods
        if each.meta.namespace == namespace and each.meta.labels.get(LABEL) == SERVING
    ]
    served = {each.node for each in ours if each.ready and not each.is_leaving}
    return {
        Target("Pod", namespace, each.meta.name, each.meta.uid): DRAINING
        for each in ours
        if each.is_leaving and each.node in served
    }


class DrainDuty:
    """`pods` gives those of the namespace, as they are now."""

    def __init__(
        self, client: KubeClient, pods: Callable[[], Iterable[PodObject]], namespace: str
    ) -> None:
        self.ledger: WriteLedger[str] = WriteLedger(removes=False)
        self._client = client
        self._pods = pods
        self._namespace = namespace

    def wanted(self) -> Mapping[Target, str]:
        return outlived(self._pods(), self._namespace)

    async def look(self) -> Mapping[Target, str]:
        return {}  # the label itself says what is left to do

    async def write(self, target: Target, value: str | None) -> None:
        await merge_metadata(self._client, target, labels={LABEL: value})


async def merge_metadata(client: KubeClient, target: Target, **changed: Mapping[str, Any]) -> None:
    """Merge labels or annotations into a pod's; nothing if that pod is gone. Raises MeshError."""
    try:
        path = PODS.path(target.namespace, target.name)
        await client.merge(path, {"metadata": {"uid": target.uid, **changed}}, msgspec.Raw)
    except ApiError as exc:
        if exc.code not in (404, 409, 422):
            raise
