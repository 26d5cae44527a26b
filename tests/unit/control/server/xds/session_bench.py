"""A cache, a session and a client back to back, and what a mesh of theirs is made of."""

from __future__ import annotations

from dataclasses import replace

from control.model.address import parse_address
from control.model.policy import Action, Policy, PolicyScope
from control.model.workload import NetworkAddress, Service, Workload
from control.server.compile.mesh import CompiledMesh
from control.server.xds.node_view import NodeView
from control.server.xds.session import DeltaSession
from control.wire import discovery_pb2 as pb
from control.wire.delta import DeltaClient, NodeInfo, Update
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.support.mesh_cache import EMPTY, MeshCache

NODE = NodeInfo("ztunnel~x")
KEY = "ns/web.ns.svc"


def workload(name: str, revision: str = "", services: tuple[str, ...] = ()) -> Workload:
    address = parse_address(f"10.0.0.{ord(name[-1])}")
    return Workload(
        uid=f"c//Pod/ns/{name}",
        name=name,
        namespace="ns",
        addresses=(address,),
        canonical_revision=revision,
        services=dict.fromkeys(services, ()),
    )


def service() -> Service:
    return Service("web", "ns", "web.ns.svc", (NetworkAddress("", parse_address("10.9.0.1")),))


def policy(name: str) -> Policy:
    return Policy(name, "ns", PolicyScope.NAMESPACE, Action.DENY)


def make_mesh(
    *workloads: Workload, policies: tuple[Policy, ...] = (), services: tuple[Service, ...] = ()
) -> CompiledMesh:
    return replace(
        EMPTY,
        workloads={each.uid: each for each in workloads},
        services={each.key: each for each in services},
        policies={each.key: each for each in policies},
    )


class Bench:
    """A cache, a session and a client back to back, without a network."""

    def __init__(self, mesh: CompiledMesh, client: DeltaClient | None = None) -> None:
        self.cache = MeshCache()
        self.cache.update(mesh)
        self.client = client or DeltaClient(NODE, [ADDRESS_TYPE, AUTHORIZATION_TYPE])
        self.open()

    def open(self) -> None:
        self.session = DeltaSession(NodeView(self.cache, "n1"))
        for request in self.client.opening():
            self.tell(request)

    def tell(self, request: pb.DeltaDiscoveryRequest | None) -> None:
        assert request is not None
        self.session.receive(request)

    def change(self, mesh: CompiledMesh) -> None:
        self.session.changed(self.cache.update(mesh))

    def take(self) -> Update | None:
        response = self.session.take()
        return None if response is None else self.client.receive(response.data)

    def answer(self, update: Update, rejected: dict[str, str] | None = None) -> None:
        self.tell(self.client.acknowledge(update.type_url, update.nonce, rejected))

    def settle(self) -> list[Update]:
        """Everything there is to say, each acknowledged at once."""
        found = []
        while (update := self.take()) is not None:
            self.answer(update)
            found.append(update)
        return found


def names(update: Update | None) -> list[str]:
    assert update is not None
    return [each.name for each in update.added]


A, B = workload("a"), workload("b")
