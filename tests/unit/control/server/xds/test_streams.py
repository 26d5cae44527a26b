"""Streams as tasks: what a client gets, how a stream ends, and who is not let in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from control.server.callers.budget import NAMES, STREAMS, node_tenant
from control.server.compile.settings import Settings
from control.server.sources.captured import CapturedSet
from control.server.xds import streams
from control.server.xds.publish import Publisher
from control.server.xds.streams import DeltaService
from control.wire import discovery_pb2 as pb
from control.wire.delta import SIZE_HEADER, DeltaClient, NodeInfo, Update
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.support.calls import Aborted, Call
from tests.support.control_door import DoorBench
from tests.support.manifests import load, pod

UID = "Kubernetes//Pod/shop/web"
DEADLINE_S = 5.0


class Bench(DoorBench):
    """A service over a mesh of one pod."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        captured = CapturedSet(folder / "captured", is_new=True)
        self.publisher = Publisher(Settings(), captured, self.metrics, self.clock)
        self.publish(pod())
        self.service = DeltaService(
            self.publisher, self.door, self.arrivals.received, self.metrics, self.clock
        )

    def publish(self, text: str) -> None:
        self.publisher.offer(load(text))
        self.publisher.publish()


class Node:
    """One client on a stream: a delta client, and queues for what goes to and fro."""

    def __init__(self, bench: Bench, call: Call, claims: str = "n1") -> None:
        info = NodeInfo("ztunnel~x", metadata={"NODE_NAME": claims})
        self.client = DeltaClient(info, [ADDRESS_TYPE, AUTHORIZATION_TYPE])
        self.call = call
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.stream = bench.service.stream(self._iterate(), call)

    def open(self) -> None:
        for request in self.client.opening():
            self.say(request)

    def say(self, request: pb.DeltaDiscoveryRequest) -> None:
        self._requests.put_nowait(request.SerializeToString())

    def say_bytes(self, data: bytes | None) -> None:
        """`None` ends the stream."""
        self._requests.put_nowait(data)

    async def hear(self) -> Update:
        async with asyncio.timeout(DEADLINE_S):
            update = self.client.receive(await self.call.written.get())
        request = self.client.acknowledge(update.type_url, update.nonce)
        assert request is not None
        self.say(request)
        return update

    async def _iterate(self) -> AsyncIterator[bytes]:
        while (data := await self._requests.get()) is not None:
            yield data


def run(bench: Bench, node: Node, test: Callable[[], Awaitable[None]]) -> None:
    """Run the stream beside `test`; both have to end."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(node.stream)
            await test()

    try:
        asyncio.run(whole())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_client_gets_everything_then_changes_until_it_leaves(bench: Bench) -> None:
    node = Node(bench, bench.call())

    async def test() -> None:
        node.open()
        policies, addresses = await node.hear(), await node.hear()
        assert policies.type_url == AUTHORIZATION_TYPE
        assert [each.name for each in addresses.added] == [UID]
        assert node.call.said == {SIZE_HEADER: "1"}
        (client,) = bench.service.clients
        assert (client.node_id, client.caller.node) == ("ztunnel~x", "n1")
        bench.publish("")
        assert (await node.hear()).removed == (UID,)
        node.say_bytes(None)

    run(bench, node, test)
    assert bench.service.clients == set()
    value = bench.metrics.registry.get_sample_value
    assert value("tulle_control_pushes_total", {"type": "Address"}) == 2
    assert value("tulle_control_connected", {"kind": "node"}) == 0


def test_a_rejected_response_is_counted_and_told_of(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """The line's node is that of the token."""
    node = Node(bench, bench.call())

    async def test() -> None:
        node.open()
        await node.hear()
        update = node.client.receive(await node.call.written.get())
        nack = node.client.acknowledge(update.type_url, update.nonce, {UID: "no"})
        assert nack is not None
        node.say(nack)
        node.say_bytes(None)

    run(bench, node, test)
    labels = {"type": "Address"}
    assert bench.metrics.registry.get_sample_value("tulle_control_nacks_total", labels) == 1
    (told,) = [each for each in caplog.records if each.message == "xds.nacked"]
    fields = told.fields  # type: ignore[attr-defined]  # ours
    assert (fields["node"], fields["client"], fields["error"]) == ("n1", "ztunnel~x", f"{UID}: no")


def test_a_closing_server_ends_every_stream(bench: Bench) -> None:
    node = Node(bench, bench.call())

    async def test() -> None:
        node.open()
        await node.hear()
        bench.service.close()

    run(bench, node, test)
    assert bench.service.clients == set()


def test_a_stream_that_ends_at_once_is_nobody(bench: Bench) -> None:
    node = Node(bench, bench.call())

    async def test() -> None:
        node.say_bytes(None)

    run(bench, node, test)


def opening(node: Node) -> bytes:
    return next(iter(node.client.opening())).SerializeToString()


@pytest.mark.parametrize(
    ("first", "claims", "code", "reason"),
    [
        (b"\xff", "n1", grpc.StatusCode.INVALID_ARGUMENT, "wire"),
        (None, "n2", grpc.StatusCode.PERMISSION_DENIED, "other_node"),
    ],
)
def test_a_first_request_that_is_wrong_ends_the_stream(
    bench: Bench, first: bytes | None, claims: str, code: grpc.StatusCode, reason: str
) -> None:
    node = Node(bench, bench.call(), claims)

    async def test() -> None:
        node.say_bytes(opening(node) if first is None else first)

    with pytest.raises(Aborted) as caught:
        run(bench, node, test)
    assert caught.value.code is code
    assert bench.refused("xds", reason) == 1
    assert bench.service.clients == set()


@pytest.mark.parametrize("names", [0, 70_000])
def test_a_later_request_that_is_wrong_ends_it_too(bench: Bench, names: int) -> None:
    node = Node(bench, bench.call())

    async def test() -> None:
        request = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE)
        request.resource_names_subscribe.extend(f"n/10.0.{n >> 8}.{n & 255}" for n in range(names))
        node.open()
        await node.hear()
        if names:
            request.resource_names_unsubscribe.append("*")
            node.say(request)
        else:
            node.say_bytes(b"\xff")

    with pytest.raises(Aborted, match="INVALID_ARGUMENT"):
        run(bench, node, test)
    assert bench.refused("xds", "too_many_names" if names else "wire") == 1
    assert bench.service.clients == set()


def test_without_a_token_nothing_is_read(bench: Bench) -> None:
    node = Node(bench, Call())

    async def test() -> None:
        node.open()

    with pytest.raises(Aborted, match="UNAUTHENTICATED"):
        run(bench, node, test)
    assert bench.refused("xds", "token_missing") == 1


def test_streams_of_a_node_are_bounded(bench: Bench) -> None:
    node = Node(bench, bench.call())
    for _ in range(STREAMS.each):
        assert bench.service.streams.take(node_tenant("n1"))

    async def test() -> None:
        node.open()

    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        run(bench, node, test)
    assert bench.refused("xds", "streams_max") == 1
    assert bench.service.streams.held(node_tenant("n1")) == STREAMS.each
    other = Node(bench, bench.call("n2"), "n2")

    async def served() -> None:
        other.open()
        await other.hear()
        other.say_bytes(None)

    run(bench, other, served)


def test_names_that_nobody_has_are_on_the_nodes_account_until_it_was_told(bench: Bench) -> None:
    node = Node(bench, bench.call())
    gone = {f"gone-{number}": "v" for number in range(100)}

    async def test() -> None:
        first = pb.DeltaDiscoveryRequest(type_url=ADDRESS_TYPE, initial_resource_versions=gone)
        node.say(first)
        await node.call.written.get()
        assert bench.service.names.total == 0
        for _ in range(NAMES.each // (1 << 20)):
            assert bench.service.names.take(node_tenant("n1"), 1 << 20)
        node.say(
            pb.DeltaDiscoveryRequest(type_url=AUTHORIZATION_TYPE, initial_resource_versions=gone)
        )

    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        run(bench, node, test)
    assert bench.refused("xds", "names_max") == 1
    assert bench.service.names.total == NAMES.each, "only what the test itself took"


def test_a_large_first_request_may_take_longer(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own deadlines are elsewhere: a turn to be read, and a time from there."""
    monkeypatch.setattr(streams, "FIRST_REQUEST_S", 0.05)
    arrival = bench.arrivals.get(1)
    assert arrival is not None
    arrival.is_sending = True
    node = Node(bench, bench.call())

    async def test() -> None:
        await asyncio.sleep(0.15)
        node.open()
        assert (await node.hear()).type_url == AUTHORIZATION_TYPE
        node.say_bytes(None)

    run(bench, node, test)
    assert bench.refused("xds", "silent") == 0


def test_a_client_that_takes_nothing_is_left(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "WRITE_S", 0.05)
    node = Node(bench, bench.call())

    async def write(message: bytes) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(node.call, "write", write)

    async def test() -> None:
        node.open()

    with pytest.raises(Aborted, match="RESOURCE_EXHAUSTED"):
        run(bench, node, test)
    assert bench.refused("xds", "slow_reader") == 1
    assert bench.service.streams.total == bench.service.sending.shares.total == 0


@pytest.mark.parametrize("what", ["write", "send_initial_metadata"])
def test_a_client_that_goes_while_it_is_written_to_is_no_bug(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Ended by gRPC, which cancels the call: each other end would be a stack trace in the log."""
    node = Node(bench, bench.call())
    failed = asyncio.Event()

    async def write(_: object) -> None:
        failed.set()
        raise grpc.aio.InternalError('Failed "execute_batch"')

    monkeypatch.setattr(node.call, what, write)

    async def whole() -> None:
        task = asyncio.get_running_loop().create_task(node.stream)
        node.open()
        await failed.wait()
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(whole())
    assert bench.service.streams.total == 0
    assert not bench.service.clients


def test_a_stream_ends_after_the_message_that_is_being_written(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = Node(bench, bench.call())
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def write(message: bytes) -> None:
        begun.set()
        await may_end.wait()

    monkeypatch.setattr(node.call, "write", write)

    async def whole() -> None:
        task = asyncio.get_running_loop().create_task(node.stream)
        node.open()
        await begun.wait()
        node.say_bytes(None)
        done, _ = await asyncio.wait([task], timeout=0.05)
        assert not done, "gRPC takes no end of a call beside a message"
        may_end.set()
        async with asyncio.timeout(DEADLINE_S):
            await task

    asyncio.run(whole())
    assert bench.service.streams.total == 0
