"""A node that asks on demand, without processes: the control plane's session, the supervisor's
client, and a worker's state that is given what the supervisor publishes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from control.model.policy import Policy
from control.model.workload import Service, Workload
from control.server.compile.mesh import CompiledMesh
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from tests.support.engine.meshes import mesh
from tests.support.mesh_cache import EMPTY, MeshCache
from ztunnel.config import Addresses, ZtunnelConfig
from ztunnel.mesh.entries import Entry
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason
from ztunnel.supervisor.demand import Demand
from ztunnel.supervisor.xds import XdsClient

NODE = "n1"
CONFIG = ZtunnelConfig(
    "control:1",
    "control:1",
    Path("zds"),
    Path("run"),
    node=NODE,
    addresses=Addresses.ON_DEMAND,
)
Value = Workload | Service | Policy


class DemandRig:
    def __init__(self, *values: Value) -> None:
        self.cache = MeshCache()
        self.cache.update(compiled(values))
        self.published: list[Entry] = []
        self.refused: list[tuple[str, list[str], Reason]] = []
        self.asked: list[list[str]] = []  # names subscribed, a list for each request
        self.worker = State(node=NODE)
        self.supervisor = State(node=NODE, strict=True)
        self.client = XdsClient(
            CONFIG,
            self.supervisor,
            self._publish,
            refuse=lambda *each: self.refused.append(each),
        )

    @property
    def demand(self) -> Demand:
        return self.client.demand

    async def _publish(self, entries: list[Entry]) -> None:
        self.published += entries
        self.worker.apply(entries)

    async def start(self) -> None:
        await self.client._turn_to(on_demand=True)
        await self.open()

    async def open(self) -> None:
        """A new stream."""
        self.session = DeltaSession(NodeView(self.cache, NODE))
        opening = self.client._delta.opening()
        self.demand.opened()
        for request in opening:
            self.session.receive(request)
        await self.settle()

    async def change(self, *values: Value) -> None:
        self.session.changed(self.cache.update(compiled(values)))
        await self.settle()

    async def want(self, *names: str, pod: str = "p", spare: bool = False) -> None:
        self.demand.want(pod, list(names), spare=spare)
        await self.settle()

    async def settle(self) -> None:
        """Everything that both sides have to say."""
        while True:
            while self.demand._requests:
                await self._tell(self.demand._requests.popleft())
            response = self.session.take()
            if response is None:
                return
            await self.client._take(self.client.receive(response.data), self._tell)

    async def _tell(self, data: bytes) -> None:
        request = pb.DeltaDiscoveryRequest.FromString(data)
        if request.resource_names_subscribe:
            self.asked.append(list(request.resource_names_subscribe))
        self.session.receive(request)


def compiled(values: Iterable[Value]) -> CompiledMesh:
    found = list(values)
    return replace(
        EMPTY,
        workloads={each.uid: each for each in found if isinstance(each, Workload)},
        services={each.key: each for each in found if isinstance(each, Service)},
        policies={each.key: each for each in found if isinstance(each, Policy)},
    )


def told_all(*values: Value) -> State:
    """The state of a node that is told of everything."""
    return mesh(*values, node=NODE)
