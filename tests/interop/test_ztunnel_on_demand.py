"""The supervisor's client and the real control plane, where addresses come on demand or go by the
size of the mesh; and a control plane of another make, which says nothing about its size."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from google.protobuf.any_pb2 import Any as AnyMessage

from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, DELTA_METHOD
from tests.support.certificates import make_authority
from tests.support.engine.meshes import entry, pod
from tests.support.processes.control import Control, running_control
from ztunnel.config import Addresses, ZtunnelConfig
from ztunnel.mesh.entries import Entry
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason
from ztunnel.supervisor import scope, xds
from ztunnel.supervisor.xds import XdsClient

DEADLINE_S = 20.0
PODS = """\
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop, uid: {name}, labels: {{app: {name}}}}}
spec: {{serviceAccountName: web, nodeName: {node}, containers: [{{name: app}}]}}
status: {{phase: Running, podIPs: [{{ip: {address}}}]}}
"""


def manifest(name: str, node: str, number: int) -> str:
    return PODS.format(name=name, node=node, address=f"10.1.0.{number}")


class Node:
    """A supervisor's client on n1, and a worker's state that follows it."""

    def __init__(self, folder: Path, port: int, root_pem: bytes, addresses: Addresses) -> None:
        (folder / "root.pem").write_bytes(root_pem)
        at, root = f"localhost:{port}", str(folder / "root.pem")
        token = folder / "token" if (folder / "token").exists() else None
        self.config = ZtunnelConfig(
            at, at, folder, folder, root, root, node="n1", token=token, addresses=addresses
        )
        self.supervisor, self.worker = State(node="n1", strict=True), State(node="n1")
        self.refused: list[Reason] = []
        self._changed = asyncio.Event()
        self.client = XdsClient(
            self.config,
            self.supervisor,
            self._publish,
            refuse=lambda _pod, _names, reason: self.refused.append(reason),
        )

    async def _publish(self, entries: list[Entry]) -> None:
        self.worker.apply(entries)
        self._changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            self._changed.clear()
            await self._changed.wait()

    def pods(self) -> set[str]:
        return {each.name for each in self.worker.workloads()}


def run(
    folder: Path, test: Callable[[Control, Node], Coroutine[Any, Any, None]], addresses: Addresses
) -> None:
    async def whole() -> None:
        (folder / "manifests").mkdir()
        for number, node in ((1, "n1"), (2, "n2"), (3, "n3")):
            text = manifest(f"pod{number}", node, number)
            (folder / f"manifests/{number}.yaml").write_text(text)
        async with running_control(folder) as control:
            (folder / "token").write_text(control.token("n1"))
            node = Node(folder, control.port, control.root_pem, addresses)
            async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(node.client.run()),
                    tasks.create_task(node.client.demand.run()),
                ]
                await node.until(lambda: node.worker.synced)
                await test(control, node)
                for each in running:
                    each.cancel()

    asyncio.run(whole())


def test_an_address_is_told_when_it_is_asked_for_and_followed_from_then_on(tmp_path: Path) -> None:
    async def test(control: Control, node: Node) -> None:
        assert node.pods() == {"pod1"}
        node.client.demand.want("p", ["/10.1.0.2", "/192.0.2.1"], spare=False)
        await node.until(lambda: "/192.0.2.1" in node.worker.known)
        assert node.pods() == {"pod1", "pod2"}
        (control.manifests / "2.yaml").write_text(manifest("new", "n3", 2))
        await node.until(lambda: node.pods() == {"pod1", "new"})
        (control.manifests / "4.yaml").write_text(manifest("late", "n1", 4))
        await node.until(lambda: node.pods() == {"pod1", "new", "late"})
        node.client.demand.look((), ())
        leaving = node.client.demand.book.idle(10**9)
        await node.client.demand._give_back(leaving)
        await node.until(lambda: node.pods() == {"pod1", "late"})
        assert node.refused == []

    run(tmp_path, test, Addresses.ON_DEMAND)


def test_a_small_mesh_is_told_whole_and_one_that_grows_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "ON_DEMAND_FROM", 4)
    monkeypatch.setattr(scope, "ALL_BELOW", 3)
    monkeypatch.setattr(scope, "STAYS_S", 0.0)
    monkeypatch.setattr(xds, "LOOK_S", 0.05)

    async def test(control: Control, node: Node) -> None:
        assert node.pods() == {"pod1", "pod2", "pod3"}
        assert not node.worker.known.on_demand
        (control.manifests / "4.yaml").write_text(manifest("pod4", "n4", 4))
        await node.until(lambda: node.pods() == {"pod1"} and node.worker.known.on_demand)
        node.client.demand.want("p", ["/10.1.0.4"], spare=False)
        await node.until(lambda: "/10.1.0.4" in node.worker.known)
        assert node.pods() == {"pod1", "pod4"}
        for number in (2, 3):
            (control.manifests / f"{number}.yaml").unlink()
        await control.logged("mesh.published .*address=")
        node.client.demand.want("p", ["/10.1.0.2"], spare=False)
        await node.until(lambda: "/10.1.0.2" in node.worker.known)

    run(tmp_path, test, Addresses.AUTO)


def test_a_mesh_that_shrank_is_told_whole_on_the_next_stream(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scope, "ON_DEMAND_FROM", 3)
    monkeypatch.setattr(scope, "ALL_BELOW", 3)
    monkeypatch.setattr(scope, "STAYS_S", 0.0)

    async def test(control: Control, node: Node) -> None:
        assert node.worker.known.on_demand
        assert node.pods() == {"pod1"}
        (control.manifests / "3.yaml").unlink()
        await control.logged("mesh.published .*address=1")
        await node.client.inbox.end(xds.XdsEnded("for the test"))
        await node.until(lambda: not node.worker.known.on_demand)
        assert node.pods() == {"pod1", "pod2"}, "all of them are here before it counts"

    run(tmp_path, test, Addresses.AUTO)


@asynccontextmanager
async def foreign(folder: Path) -> AsyncIterator[Node]:
    """A control plane that answers each first request with one pod of another node, or nothing."""
    authority = make_authority()

    async def stream(requests: AsyncIterator[bytes], _: object) -> AsyncIterator[bytes]:
        async for data in requests:
            request = pb.DeltaDiscoveryRequest.FromString(data)
            if request.response_nonce:
                continue
            answer = pb.DeltaDiscoveryResponse(type_url=request.type_url, nonce="1")
            if request.type_url == ADDRESS_TYPE:
                assert not request.resource_names_subscribe, "everything, unasked"
                far = entry(pod("far", "10.1.0.9", node="n2"))
                answer.resources.add(
                    name=far.name,
                    version="1",
                    resource=AnyMessage(type_url=ADDRESS_TYPE, value=far.body),
                )
            yield answer.SerializeToString()

    server = grpc.aio.server()
    handler = grpc.stream_stream_rpc_method_handler(stream)
    service, method = DELTA_METHOD.strip("/").split("/")
    server.add_generic_rpc_handlers(
        [grpc.method_handlers_generic_handler(service, {method: handler})]
    )
    leaf = authority.issue(hosts=["localhost"])
    credentials = grpc.ssl_server_credentials([(leaf.key_pem, leaf.chain_pem[0])])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()
    try:
        yield Node(folder, port, authority.pem, Addresses.AUTO)
    finally:
        await server.stop(None)


def test_another_control_plane_is_asked_for_everything(tmp_path: Path) -> None:
    async def whole() -> None:
        async with (
            foreign(tmp_path) as node,
            asyncio.timeout(DEADLINE_S),
            asyncio.TaskGroup() as tasks,
        ):
            running = tasks.create_task(node.client.run())
            await node.until(lambda: node.worker.synced)
            assert node.pods() == {"far"}
            assert not node.worker.known.on_demand
            running.cancel()

    asyncio.run(whole())
