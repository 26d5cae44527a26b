"""Shared parts of the tests of verdicts and shares."""

from __future__ import annotations

from dataclasses import dataclass

from control.model.workload import (
    GatewayAddress,
    NamespacedHostname,
    Workload,
)
from tests.support.engine.meshes import key, pod, service
from ztunnel.mesh.state import State

CLIENT = pod("client", "10.0.0.1", "fd00::1", node="n1")


WEB = {key("web"): ()}


GATE = GatewayAddress(NamespacedHostname("shop", "gate.shop.svc.cluster.local"), 15008)


SERVICE = service("web", "10.1.0.1", "fd01::1")


@dataclass(frozen=True)
class Served:
    """A pod that this node's ztunnel serves."""

    workload_uid: str

    @property
    def uid(self) -> str:
        return "pod-" + self.workload_uid.rpartition("/")[2]

    def workload(self, state: State) -> Workload | None:
        return state.workload(self.workload_uid)
