"""Manifests of a large mesh: ten pods a service, ten services a namespace, a policy for half of the
services, 200 pods on the first node. Pure."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

PODS_OF_SERVICE, SERVICES_OF_NAMESPACE = 10, 10
ENROLLED_AT_ONCE = 200
FILE_OBJECTS = 2000
Manifest = dict[str, Any]


class LargeMesh:
    def __init__(self, pods: int, nodes: int) -> None:
        self.pods, self.nodes = pods, nodes
        self.services = max(1, pods // PODS_OF_SERVICE)

    def write(self, folder: Path) -> None:
        """The first pod has a file of its own."""
        folder.mkdir(parents=True)
        (folder / "hot.yaml").write_text(text([self.pod(0)]))
        for kind, found in self._kinds():
            for number, part in enumerate(_chunks(found)):
                (folder / f"{kind}-{number:03}.yaml").write_text(text(part))

    def manifests(self) -> Iterator[Manifest]:
        """All of them."""
        yield self.pod(0)
        for _, found in self._kinds():
            yield from found

    def _kinds(self) -> Iterator[tuple[str, Iterable[Manifest]]]:
        """All but the first pod."""
        yield "base", self._base()
        yield "services", map(self._service, range(self.services))
        yield "policies", map(self._policy, range(0, self.services, 2))
        yield "pods", map(self.pod, range(1, self.pods))

    def node_of(self, number: int) -> str:
        return f"node-{0 if number < ENROLLED_AT_ONCE else number % self.nodes}"

    def uid_of(self, number: int) -> str:
        return f"00000000-0000-4000-8000-{number:012d}"

    def pod(self, number: int, version: str = "v1") -> Manifest:
        service = number // PODS_OF_SERVICE
        name, address = (
            f"app-{service}",
            f"10.{64 + (number >> 16)}.{number >> 8 & 255}.{number & 255}",
        )
        return {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-6d8f7c9b5-{number:06d}",
                "namespace": _namespace(service),
                "uid": self.uid_of(number),
                "creationTimestamp": "2026-11-20T10:00:00Z",
                "labels": {"app": name, "version": version, "pod-template-hash": "6d8f7c9b5"},
                "ownerReferences": [
                    {"kind": "ReplicaSet", "name": f"{name}-6d8f7c9b5", "controller": True}
                ],
            },
            "spec": {
                "serviceAccountName": name,
                "nodeName": self.node_of(number),
                "containers": [{"name": "app", "ports": [{"name": "http", "containerPort": 8080}]}],
            },
            "status": {
                "phase": "Running",
                "podIPs": [{"ip": address}, {"ip": f"fd00::{number >> 16:x}:{number & 65535:x}"}],
                "conditions": [{"type": "Ready", "status": "True"}],
            },
        }

    def _base(self) -> Iterator[Manifest]:
        for number in range(self.services // SERVICES_OF_NAMESPACE + 1):
            labels = {"istio.io/dataplane-mode": "ambient"}
            meta = {"name": f"ns-{number}", "labels": labels}
            yield {"apiVersion": "v1", "kind": "Namespace", "metadata": meta}
        for number in range(self.nodes):
            labels = {"topology.kubernetes.io/zone": f"z{number % 3}"}
            meta = {"name": f"node-{number}", "labels": labels}
            yield {"apiVersion": "v1", "kind": "Node", "metadata": meta}

    def _service(self, number: int) -> Manifest:
        return {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"app-{number}", "namespace": _namespace(number)},
            "spec": {
                "selector": {"app": f"app-{number}"},
                "clusterIPs": [f"172.20.{number >> 8}.{number & 255}", f"fd01::{number:x}"],
                "ports": [{"name": "http", "port": 80, "targetPort": "http"}],
            },
        }

    def _policy(self, number: int) -> Manifest:
        account = f"cluster.local/ns/{_namespace(number)}/sa/app-{number}"
        return policy(f"p-{number}", _namespace(number), f"app-{number}", account)


def policy(name: str, namespace: str, app: str, principal: str) -> Manifest:
    rule = {
        "from": [{"source": {"principals": [principal]}}],
        "to": [{"operation": {"ports": ["8080"]}}],
    }
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"selector": {"matchLabels": {"app": app}}, "action": "ALLOW", "rules": [rule]},
    }


def text(found: Iterable[Manifest]) -> str:
    return "".join(f"---\n{json.dumps(each)}\n" for each in found)


def _namespace(service: int) -> str:
    return f"ns-{service // SERVICES_OF_NAMESPACE}"


def _chunks(found: Iterable[Manifest]) -> Iterator[list[Manifest]]:
    part: list[Manifest] = []
    for each in found:
        part.append(each)
        if len(part) == FILE_OBJECTS:
            yield part
            part = []
    if part:
        yield part
