"""Lets kubelets look at agents again that started before there was a root certificate.

At a first installation agents start beside the control plane, so the ConfigMap with the root is not
there yet. A kubelet shows it to a pod that runs when it looks at that pod next, which is after 60
to 90 seconds, or at once if the pod's object changes: an annotation does.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from control.kube.client import KubeClient
from control.server.leader.drains import LABEL, merge_metadata
from control.server.leader.ledger import Target, WriteLedger
from control.server.sources.objects import PodObject

AGENT: Final = "tulle-agent"  # as the chart's selectors have it
ANNOTATION: Final = "tulle.io/root-published"
_HASH_CHARACTERS: Final = 16


def waiting(pods: Iterable[PodObject], namespace: str) -> list[Target]:
    """Agents that are not ready: the root may be all that they lack."""
    return [
        Target("Pod", namespace, each.meta.name, each.meta.uid)
        for each in pods
        if each.meta.namespace == namespace
        and each.meta.labels.get(LABEL) == AGENT
        and not (each.ready or each.is_leaving or each.is_terminal)
    ]


class RootNewsDuty:
    """`pods` gives those of the namespace, as they are now. The value is the annotation's: the
    first half of the hash of the root."""

    def __init__(
        self, client: KubeClient, pods: Callable[[], Iterable[PodObject]], namespace: str
    ) -> None:
        self.ledger: WriteLedger[str] = WriteLedger(removes=False)
        self._client = client
        self._pods = pods
        self._namespace = namespace
        self._to_tell: dict[Target, str] = {}

    def published(self, namespace: str, pem: str) -> None:
        """Note that a namespace has its first root now."""
        if namespace == self._namespace:
            value = hashlib.sha256(pem.encode()).hexdigest()[:_HASH_CHARACTERS]
            self._to_tell = dict.fromkeys(waiting(self._pods(), namespace), value)

    def wanted(self) -> Mapping[Target, str]:
        return self._to_tell

    async def look(self) -> Mapping[Target, str]:
        return {}  # whoever starts later finds the root

    async def write(self, target: Target, value: str | None) -> None:
        await merge_metadata(self._client, target, annotations={ANNOTATION: value})
        self._to_tell.pop(target, None)
