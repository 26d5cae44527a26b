"""The controllers and kubelets of the small API server, as far as an installation waits for them:
Deployments and DaemonSets get their pods and their counts at once.

`hold(name)` keeps a workload's pods from getting ready, with the reason that a kubelet would give.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from tests.support.kube.api import Answer, Api
from tests.support.kube.faults import Request
from tests.support.kube.listing import Watch
from tests.support.kube.server import KubeServer
from tests.support.kube.store import Author, Change

Json = dict[str, Any]
WORKLOADS = {("apps", "deployments"): "Deployment", ("apps", "daemonsets"): "DaemonSet"}


def node(name: str, **about: str) -> Json:
    """A Linux node, as kubeadm makes one."""
    info = {
        "kubeletVersion": "v1.36.2",
        "kernelVersion": "6.18.0",
        "containerRuntimeVersion": "containerd://2.1.9",
        "operatingSystem": "linux",
        "architecture": "amd64",
        **about,
    }
    status = {"nodeInfo": info}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "status": status}


class Controllers:
    """Acts after each request, so that a test never waits for it."""

    def __init__(self, kube: KubeServer) -> None:
        self._kube = kube
        self._held: dict[str, Json] = {}
        self._changes: list[Change] = []

    def __call__(self, change: Change) -> None:
        if change.key[0] in WORKLOADS:
            self._changes.append(change)

    def step(self) -> None:
        """Bring about what the changes until now ask for."""
        changes, self._changes = self._changes, []
        for key in dict.fromkeys(change.key for change in changes):
            value = self._kube.store.objects.get(key)
            if value is None:
                self._end(key[1], key[2])
            else:
                self._run(WORKLOADS[key[0]], value)
        self._changes.clear()  # our own

    def hold(self, name: str, reason: str, message: str = "") -> None:
        self._held[name] = {"waiting": {"reason": reason, "message": message}}

    def _nodes(self) -> list[str]:
        return [key[2] for key in self._kube.store.objects if key[0] == ("", "nodes")]

    def _run(self, kind: str, value: Json) -> None:
        meta, held = value["metadata"], self._held.get(value["metadata"]["name"])
        nodes = self._nodes()
        places = nodes
        if kind == "Deployment":
            places = [nodes[n % len(nodes)] for n in range(value["spec"].get("replicas", 1))]
        self._end(meta["namespace"], meta["name"])
        for number, place in enumerate(places):
            self._kube.put(_pod(value, f"{meta['name']}-{number}", place, held))
        count, ready = len(places), 0 if held else len(places)
        counts = {"replicas": count, "updatedReplicas": count, "availableReplicas": ready}
        if kind == "DaemonSet":
            counts = {
                "desiredNumberScheduled": count,
                "updatedNumberScheduled": count,
                "numberAvailable": ready,
            }
        status = {"observedGeneration": meta.get("generation", 1), **counts}
        body = {"metadata": {"name": meta["name"]}, "status": status}
        store = self._kube.store
        author = Author("kube-controller-manager", subresource="status")
        store.replace(store.resource_of(value), meta["namespace"], body, author)

    def _end(self, namespace: str, name: str) -> None:
        for key in [each for each in self._kube.store.objects if each[0] == ("", "pods")]:
            owned = self._kube.store.objects[key]["metadata"].get("annotations", {}).get("owner")
            if key[1] == namespace and owned == name:
                self._kube.store.remove(key)


class _Stepped:
    """The API, with the controllers behind each request."""

    def __init__(self, api: Api, controllers: Controllers) -> None:
        self._api, self._controllers = api, controllers

    def __getattr__(self, name: str) -> Any:
        return getattr(self._api, name)

    def handle(self, request: Request) -> Answer | Watch:
        answer = self._api.handle(request)
        self._controllers.step()
        return answer


def _pod(owner: Json, name: str, place: str, held: Json | None) -> Json:
    template = owner["spec"]["template"]
    container = template["spec"]["containers"][0]["name"]
    state = held or {"running": {}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": owner["metadata"]["namespace"],
            "labels": template["metadata"]["labels"],
            "annotations": {"owner": owner["metadata"]["name"]},
        },
        "spec": {"nodeName": place, "containers": [{"name": container}]},
        "status": {
            "phase": "Pending" if held else "Running",
            "conditions": [{"type": "Ready", "status": "False" if held else "True"}],
            "containerStatuses": [{"name": container, "state": state}],
        },
    }


@contextmanager
def running(kube: KubeServer) -> Iterator[Controllers]:
    controllers, api = Controllers(kube), kube.api
    kube.store.listeners.append(controllers)
    kube.api = cast(Api, _Stepped(api, controllers))
    try:
        yield controllers
    finally:
        kube.api = api
        kube.store.listeners.remove(controllers)
