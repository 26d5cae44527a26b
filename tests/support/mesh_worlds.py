"""Worlds of a few objects of every kind that get in each other's way, for tests of the compiler.

Each object has several versions, of which one is there at a time, or none.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from control.model.address import Address, parse_address
from control.model.intent import Intent
from control.server.compile.pods import pod_uid
from control.server.sources.objects import AnyObject, Key, PodObject
from tests.support.gateway_worlds import GATEWAY_VERSIONS
from tests.support.manifests import load, pod, policy


def service(name: str, selector: str = "app: web", target: str = "8080", more: str = "") -> str:
    return f"""
---
apiVersion: v1
kind: Service
metadata: {{name: {name}, namespace: shop}}
spec: {{selector: {{{selector}}}, ports: [{{port: 80, targetPort: {target}}}]{more}}}
"""


def slice_of(name: str, endpoints: str, owner: str = "web", hints: str = "") -> str:
    labels = f"kubernetes.io/service-name: {owner}"
    return f"""
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: {name}, namespace: shop, labels: {{{labels}}}}}
addressType: IPv4
ports: [{{port: 8080}}]
endpoints: [{endpoints}{hints}]
"""


def node(name: str, zone: str, address: str = "10.1.0.9") -> str:
    return f"""
---
apiVersion: v1
kind: Node
metadata: {{name: {name}, labels: {{topology.kubernetes.io/zone: {zone}}}}}
status: {{addresses: [{{type: InternalIP, address: {address}}}]}}
"""


def namespace(labels: str = "", name: str = "shop") -> str:
    return f"""
---
apiVersion: v1
kind: Namespace
metadata: {{name: {name}, labels: {{{labels}}}}}
"""


def mirror(name: str, created: str) -> str:
    said = "kubernetes.io/config.mirror: 5f5e2d1c6d9c4c1f9f5d0a8a5b1f7a11"
    meta = f"creationTimestamp: '2026-01-0{created}T00:00:00Z', annotations: {{{said}}}, labels:"
    return pod(name, address="10.1.0.7").replace("labels:", meta)


def strict(spec: str, name: str = "p", **meta: str) -> str:
    return policy(spec, "PeerAuthentication", name=name, **meta)


AMBIENT = "istio.io/dataplane-mode: ambient"
WEB, BOTH = "app: web", f"app: web, {AMBIENT}"
TARGET = "targetRef: {kind: Pod, name: a}"
HOST_PORT = "containers: [{name: c, ports: [{name: w, containerPort: 80, hostPort: 8080}]}]"
ON_HOST = ("status: {phase", "status: {hostIPs: [{ip: 10.1.0.9}], phase")
SELECTS = "selector: {matchLabels: {app: web}}, "
UNREADY = "conditions: {ready: false}"
VERSIONS = [
    [pod("a", labels=WEB), pod("a", labels="app: db"), pod("a", labels=BOTH, address="10.1.0.2")],
    [pod("b", address="10.1.0.2"), pod("b", labels=WEB, address="10.1.0.3")],
    [pod("b", address="10.1.0.2").replace("labels:", "uid: u-2, labels:")],  # the same, made anew
    [pod("c", address="", labels=AMBIENT), pod("c", address="10.1.0.4", spec="hostNetwork: true")],
    [
        pod("h", labels=AMBIENT, spec=HOST_PORT, address="10.1.0.5").replace(*ON_HOST),
        pod("h", labels="tulle.io/path: tunel", spec=HOST_PORT).replace(*ON_HOST),
        pod("h", labels=WEB).replace("Running", "Failed"),
    ],
    [pod("i", labels=AMBIENT, spec=HOST_PORT, address="10.1.0.6").replace(*ON_HOST)],
    [pod("n", labels="tulle.io/path: tunel", address="10.1.0.8").replace("n1", "n2")],
    [mirror("m", "1"), mirror("m", "3")],
    [mirror("o", "2")],
    [pod("a", "mine", labels=BOTH, address="10.1.0.3")],
    [service("web"), service("web", target="w"), service("web", more=", clusterIP: 10.1.0.3")],
    [service("db", "app: db"), service("db", "app: web, v: one", more=", externalIPs: [10.1.0.2]")],
    [
        service("db", more=", publishNotReadyAddresses: true, trafficDistribution: PreferClose"),
        service("db", more=", type: ExternalName, externalName: example.org"),
    ],
    [
        slice_of("s", f"{{addresses: [10.1.0.1], {TARGET}}}"),
        slice_of("s", f"{{addresses: [10.1.0.1], {TARGET}, {UNREADY}}}"),
        slice_of("s", "{addresses: [10.1.0.2]}, {addresses: [10.9.9.9], nodeName: n1}"),
        slice_of("s", f"{{addresses: [10.1.0.1], {TARGET}, {UNREADY}}}", "db"),
        slice_of("s", "{addresses: [10.9.9.9], zone: a, hints: {forZones: [{name: a}]}}", "db"),
    ],
    [slice_of("t", "{addresses: [10.1.0.3]}"), slice_of("t", "{addresses: [10.9.9.9]}", "db")],
    [node("n1", "a"), node("n1", "b", "10.1.0.1")],
    [node("n0", "a", "10.1.0.4")],
    [
        namespace(),
        namespace(AMBIENT),
        namespace("tulle.io/path: tunnel"),
        namespace("tulle.io/x: y"),
    ],
    [namespace(AMBIENT, "mine")],
    [
        policy(f"{{{SELECTS}rules: [{{}}]}}"),
        policy(f"{{{SELECTS}rules: []}}"),
        policy("{selector: {matchLabels: {app: db}}}"),
        policy("{action: DENY, rules: [{from: [{source: {namespaces: [Shop]}}]}]}"),
        policy("{rules: 5}"),
        policy("{targetRefs: [{kind: Service, name: web}]}"),
    ],
    [policy(f"{{{SELECTS}}}", namespace="istio-system"), policy("{}", namespace="istio-system")],
    [
        strict("{mtls: {mode: STRICT}}", namespace="istio-system"),
        strict("{mtls: {mode: PERMISSIVE}}", namespace="istio-system"),
        strict(f"{{{SELECTS}mtls: {{mode: STRICT}}}}", namespace="istio-system"),
    ],
    [
        strict("{mtls: {mode: STRICT}}"),
        strict("{mtls: {mode: UNSET}}"),
        strict("{mtls: {mode: X}}"),
    ],
    [
        strict(f"{{{SELECTS}mtls: {{mode: PERMISSIVE}}}}", "q"),
        strict(f"{{{SELECTS}mtls: {{mode: UNSET}}, portLevelMtls: {{80: {{mode: STRICT}}}}}}", "q"),
        strict("{selectr: {}, mtls: {mode: STRICT}}", "q"),
    ],
    [strict(f"{{{SELECTS}mtls: {{mode: STRICT}}}}", "r"), strict("{mtls: {mode: DISABLE}}", "r")],
    *GATEWAY_VERSIONS,
]
ADDRESSES = [(parse_address(f"10.1.0.{at}"),) for at in (1, 2, 4, 5)]


def _read(texts: list[str]) -> list[AnyObject]:
    return [each for text in texts for each in load(text).objects.by_key().values()]


FOUND = [_read(texts) for texts in VERSIONS]
PODS = [each for several in FOUND for each in several if isinstance(each, PodObject)]
UIDS = sorted({pod_uid(each.meta) for each in PODS})


@dataclass
class Reported:
    """Reports of nodes: uid → addresses at which a pod is captured."""

    pods: dict[str, tuple[Address, ...]] = field(default_factory=dict)

    def placed(self, uid: str, pod: PodObject) -> PodObject:
        addresses = self.pods.get(uid, ())
        if pod.host_network or not addresses or set(addresses) <= set(pod.addresses):
            return pod
        return replace(
            pod, addresses=addresses, is_placed_by_node=True, stated_addresses=pod.addresses
        )

    def is_captured(self, intent: Intent) -> bool:
        return intent.uid in self.pods

    def gone(self, uid: str) -> None:
        """Its node's word stands."""


class World:
    """Objects that change at random."""

    def __init__(self, draw: random.Random) -> None:
        self._draw = draw
        self.reported = Reported()
        self._objects: dict[Key, AnyObject] = {}
        self._versions: dict[Key, list[AnyObject]] = {}
        for each in (one for several in FOUND for one in several):
            self._versions.setdefault(each.meta.key, []).append(each)

    @property
    def objects(self) -> Mapping[Key, AnyObject]:
        """All there are, in any order."""
        keys = self._draw.sample(list(self._objects), len(self._objects))
        return {key: self._objects[key] for key in keys}

    def change(self, most: int) -> tuple[dict[Key, AnyObject | None], list[str]]:
        """Objects that changed, and uids that nodes said something of."""
        changed: dict[Key, AnyObject | None] = {}
        count = self._draw.randint(0, min(most, len(self._versions)))
        for key in self._draw.sample(list(self._versions), count):
            changed[key] = self._draw.choice([*self._versions[key], None])
        return self.put(changed), self._report()

    def put(self, changed: dict[Key, AnyObject | None]) -> dict[Key, AnyObject | None]:
        for key, value in changed.items():
            self._objects.pop(key, None)
            if value is not None:
                self._objects[key] = value
        return changed

    def _report(self) -> list[str]:
        if self._draw.random() < 0.6:
            return []
        uid = self._draw.choice(UIDS)
        if self.reported.pods.pop(uid, None) is None:
            self.reported.pods[uid] = self._draw.choice([(), *ADDRESSES])
        return [uid]
