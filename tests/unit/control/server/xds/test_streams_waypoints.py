"""Streams by what the caller's token says: a waypoint sees its own, a node sees the mesh."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import grpc
import pytest

from control.model.route import WaypointKey
from control.server.compile.settings import Settings
from control.server.sources.captured import CapturedSet
from control.server.xds.client import NACK_CHARS_MAX
from control.server.xds.publish import Publisher
from control.server.xds.streams import DeltaService
from control.wire import discovery_pb2 as pb
from control.wire.types import (
    ADDRESS_TYPE,
    AUTHORIZATION_TYPE,
    CLUSTER_TYPE,
    ENDPOINT_TYPE,
    KINDS_OF_ENVOY,
    NAMESPACE_TYPE,
    POD_TYPE,
    ROUTE_TYPE,
)
from tests.support.calls import Aborted, Call
from tests.support.control_door import DoorBench
from tests.support.gateways import gateway, namespace, service
from tests.support.manifests import load, pod
from tests.unit.control.server.xds.envoy_model import PlainEncoder

WAY, OTHER = WaypointKey("shop", "way"), WaypointKey("shop", "other")
USES = "istio.io/use-waypoint: way"
MESH = namespace() + gateway() + gateway("other") + service("web", labels=USES) + pod()
DEADLINE_S = 5.0
OF_MESH = (ADDRESS_TYPE, AUTHORIZATION_TYPE, POD_TYPE, NAMESPACE_TYPE)


class Bench(DoorBench):
    """A service over a mesh of one pod, one service and two waypoints."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        captured = CapturedSet(folder / "captured", is_new=True)
        self.publisher = Publisher(Settings(), captured, self.metrics, self.clock, PlainEncoder)
        self.is_waypoint = self.publisher.is_waypoint
        self.publish(MESH)
        self.service = DeltaService(
            self.publisher, self.door, self.arrivals.received, self.metrics, self.clock
        )

    def publish(self, text: str) -> None:
        self.publisher.offer(load(text))
        self.publisher.publish()


class Stream:
    """One client on a stream, without an opinion on what it is told."""

    def __init__(self, bench: Bench, call: Call) -> None:
        self.call = call
        self._requests: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.running = bench.service.stream(self._iterate(), call)

    def ask(self, url: str, *names: str) -> None:
        node = pb.Node(id="waypoint~shop~way~pod-1")
        self.say(pb.DeltaDiscoveryRequest(type_url=url, node=node, resource_names_subscribe=names))

    def say(self, request: pb.DeltaDiscoveryRequest) -> None:
        self._requests.put_nowait(request.SerializeToString())

    def end(self) -> None:
        self._requests.put_nowait(None)

    async def hear(self, error: str = "") -> pb.DeltaDiscoveryResponse:
        async with asyncio.timeout(DEADLINE_S):
            found = pb.DeltaDiscoveryResponse.FromString(await self.call.written.get())
        answer = pb.DeltaDiscoveryRequest(type_url=found.type_url, response_nonce=found.nonce)
        if error:
            answer.error_detail.message = error
        self.say(answer)
        return found

    async def _iterate(self) -> AsyncIterator[bytes]:
        while (data := await self._requests.get()) is not None:
            yield data


def run(stream: Stream, test: Callable[[], Awaitable[None]]) -> None:
    """Run the stream beside `test`; both have to end."""

    async def whole() -> None:
        async with asyncio.timeout(DEADLINE_S), asyncio.TaskGroup() as tasks:
            tasks.create_task(stream.running)
            await test()

    try:
        asyncio.run(whole())
    except BaseExceptionGroup as group:
        raise group.exceptions[0] from None


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.mark.parametrize(
    ("waypoint", "shown"),
    [
        (None, {ADDRESS_TYPE, NAMESPACE_TYPE, POD_TYPE}),
        (WAY, set(KINDS_OF_ENVOY)),
        (OTHER, {"type.googleapis.com/envoy.config.listener.v3.Listener"}),
    ],
)
def test_each_caller_is_shown_its_own(
    bench: Bench, waypoint: WaypointKey | None, shown: set[str]
) -> None:
    stream = Stream(bench, bench.call("n1", waypoint))
    found: dict[str, list[str]] = {}

    async def test() -> None:
        for url in (*OF_MESH, *KINDS_OF_ENVOY):
            by_name = url in (ENDPOINT_TYPE, ROUTE_TYPE)
            stream.ask(url, *(("shop/web:80",) if by_name else ()))
        for _ in (*OF_MESH, *KINDS_OF_ENVOY):
            heard = await stream.hear()
            found[heard.type_url] = [each.name for each in heard.resources]
        stream.end()

    run(stream, test)
    assert {url for url, names in found.items() if names} == shown
    assert bool(stream.call.said) is (waypoint is None), "the size of the mesh is the mesh's"


def test_a_waypoints_client_hears_of_its_own_changes_alone(bench: Bench) -> None:
    stream = Stream(bench, bench.call("n1", OTHER))

    async def test() -> None:
        stream.ask(CLUSTER_TYPE)
        assert not (await stream.hear()).resources
        bench.publish(MESH + service("api", labels=USES))
        uses = "istio.io/use-waypoint: other"
        bench.publish(MESH + service("api", labels=uses))
        assert [each.name for each in (await stream.hear()).resources] == ["shop/api:80"]
        stream.end()

    run(stream, test)


def test_a_waypoint_is_no_agent_of_its_node_whatever_it_asks_for(bench: Bench) -> None:
    stream = Stream(bench, bench.call("n1", WAY))

    async def test() -> None:
        stream.ask(POD_TYPE)
        await stream.hear()
        value = bench.metrics.registry.get_sample_value
        assert value("tulle_control_connected", {"kind": "waypoint"}) == 1
        assert not bench.service.has_agent("n1")
        stream.end()

    run(stream, test)
    assert (
        bench.metrics.registry.get_sample_value("tulle_control_connected", {"kind": "waypoint"})
        == 0
    )


def test_what_an_envoy_does_not_take_is_counted_told_and_kept(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    stream = Stream(bench, bench.call("n1", WAY))
    words = "Error adding/updating cluster(s) shop/web:80: " + "x" * NACK_CHARS_MAX

    async def test() -> None:
        stream.ask(CLUSTER_TYPE)
        await stream.hear(words)
        stream.end()

    with caplog.at_level(logging.WARNING):
        run(stream, test)
    (record,) = caplog.records
    fields = record.fields  # type: ignore[attr-defined]  # our own field
    assert record.message == "xds.nacked"
    assert (fields["waypoint"], fields["type"]) == ("shop/way", "Cluster")
    nack = bench.service.nacks[WAY]
    assert (nack.client, nack.error) == ("waypoint~shop~way~pod-1", words[:NACK_CHARS_MAX])
    labels = {"type": "Cluster"}
    assert bench.metrics.registry.get_sample_value("tulle_control_nacks_total", labels) == 1


def test_with_its_gateway_a_waypoint_goes_and_comes(bench: Bench) -> None:
    bench.publish(namespace() + gateway("other"))
    with pytest.raises(Aborted) as ended:
        run(Stream(bench, bench.call("n1", WAY)), asyncio.Event().wait)  # type: ignore[arg-type]
    assert ended.value.code is grpc.StatusCode.UNAUTHENTICATED
    assert bench.refused("xds", "token_subject") == 1
    bench.publish(MESH)
    stream = Stream(bench, bench.call("n1", WAY))

    async def test() -> None:
        stream.ask(CLUSTER_TYPE)
        assert (await stream.hear()).resources
        stream.end()

    run(stream, test)


def test_another_nodes_name_is_not_believed_of_a_waypoint_either(bench: Bench) -> None:
    stream = Stream(bench, bench.call("n1", WAY))

    async def test() -> None:
        request = pb.DeltaDiscoveryRequest(type_url=CLUSTER_TYPE)
        request.node.metadata["NODE_NAME"] = "n2"
        stream.say(request)

    with pytest.raises(Aborted):
        run(stream, test)
    assert bench.refused("xds", "other_node") == 1
