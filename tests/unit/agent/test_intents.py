"""Intents from a stream in memory: what is kept, refused, asked again, and when a report is due."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.intents import (
    ADDRESSES_MAX,
    REPLICA_CHARS_MAX,
    CaptureReporter,
    DeltaStream,
    Intents,
    NoControl,
    parse_intent,
)
from control.kit.backoff import Backoff
from control.kit.clock import SystemClock
from control.kit.errors import ControlError, WireError
from control.model.address import Address, parse_address
from control.model.intent import Intent
from control.wire import discovery_pb2 as discovery
from control.wire import node_pb2 as pb
from control.wire.types import NAMESPACE_TYPE, POD_TYPE


def pod(uid: str = "u1", **fields: Any) -> bytes:
    values: dict[str, Any] = {
        "uid": uid,
        "name": "web",
        "namespace": "shop",
        "node": "n1",
        "enrolled": True,
    }
    return pb.Pod(**{**values, **fields}).SerializeToString()


def response(nonce: str, *pods: bytes, removed: Collection[str] = ()) -> bytes:
    message = discovery.DeltaDiscoveryResponse(type_url=POD_TYPE, nonce=nonce)
    for data in pods:
        uid = pb.Pod.FromString(data).uid
        resource = message.resources.add(name=uid, version="1")
        resource.resource.type_url = POD_TYPE
        resource.resource.value = data
    message.removed_resources.extend(removed)
    return message.SerializeToString()


@dataclass
class Memory:
    """A server of a few responses; then the stream ends."""

    responses: list[bytes]
    written: list[discovery.DeltaDiscoveryRequest] = field(default_factory=list)

    async def write(self, data: bytes) -> None:
        self.written.append(discovery.DeltaDiscoveryRequest.FromString(data))

    async def read(self) -> bytes | None:
        return self.responses.pop(0) if self.responses else None


@dataclass
class Node:
    """The intents that the enroller would have."""

    streams: list[Memory | Exception]
    known: dict[str, Intent] = field(default_factory=dict)
    done: asyncio.Event = field(default_factory=asyncio.Event)

    def changed(self, fresh: dict[str, Intent], removed: Collection[str]) -> None:
        self.known.update(fresh)
        for uid in removed:
            self.known.pop(uid, None)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[DeltaStream]:
        if not self.streams:
            self.done.set()
            await asyncio.Event().wait()
        stream = self.streams.pop(0)
        if isinstance(stream, Exception):
            raise stream
        yield stream


def follow(*streams: Memory | Exception) -> tuple[Node, Intents]:
    """Runs until the agent asks for a stream that is not there."""

    async def run() -> tuple[Node, Intents]:
        node = Node(list(streams))
        intents = Intents("n1", "control:1", node.connect, SystemClock(), Backoff(1e-6, 1e-6))
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(intents.run(node.changed))
            await node.done.wait()
            running.cancel()
        return node, intents

    return asyncio.run(run())


@pytest.mark.parametrize(
    ("data", "name"),
    [(b"\xff", "u1"), (pod(), "another"), (pod(node="n2"), "u1"), (pod(name=""), "u1")],
)
def test_a_bad_intent_is_refused(data: bytes, name: str) -> None:
    with pytest.raises(WireError):
        parse_intent(data, name, "n1")


def test_a_good_one_is_taken() -> None:
    assert parse_intent(pod(), "u1", "n1").enrolled


def test_good_intents_of_a_bad_response_are_kept_and_bad_ones_named() -> None:
    stream = Memory([response("a", pod("u1"), pod("u2", node="elsewhere"))])
    node, intents = follow(stream)
    assert set(node.known) == {"u1"}
    assert intents.synced
    first, answer = stream.written
    assert first.node.metadata["NODE_NAME"] == "n1"
    assert (answer.response_nonce, "u2" in answer.error_detail.message) == ("a", True)


def test_a_lost_stream_keeps_everything_and_asks_for_the_difference() -> None:
    first = Memory([response("a", pod("u1"), pod("u2"))])
    again = Memory([response("b", removed=["u2"])])
    node, intents = follow(first, NoControl("away"), again)
    assert set(node.known) == {"u1"}
    assert dict(again.written[0].initial_resource_versions) == {"u1": "1", "u2": "1"}
    assert intents.connects == 2
    assert not intents.connection.connected
    assert intents.connection.error == "the control plane ended the stream"


def test_a_server_that_breaks_the_protocol_is_left() -> None:
    node, intents = follow(Memory([b"\xff\xff"]))
    assert node.known == {}
    assert not intents.synced
    assert intents.connection.error == "not a delta discovery response"


def test_a_report_is_due_until_accepted_and_after_each_reconnect() -> None:
    sent: list[pb.ReportRequest] = []
    answers: list[ControlError | None] = [NoControl("away"), None, None, None, None]
    there = [parse_address("10.1.0.1"), parse_address("fd00::1")]
    many = [*there, *(parse_address("10.1.0.9") for _ in range(ADDRESSES_MAX))]
    names = [
        pb.ReportResponse(replica="a" * 100, replica_addresses=many).SerializeToString(),
        b"\xff",
        pb.ReportResponse(replica="b", replica_addresses=[b"bad"]).SerializeToString(),
        b"",
    ]
    said: list[Sequence[Address]] = []

    async def send(data: bytes) -> bytes:
        sent.append(pb.ReportRequest.FromString(data))
        if (error := answers.pop(0)) is not None:
            raise error
        return names.pop(0)

    truth = {"b": (), "a": (parse_address("10.0.0.2"), parse_address("fd00::2"))}

    async def run() -> None:
        reporter = CaptureReporter("n1", send, said.append)
        assert not reporter.is_due(0, truth)  # nobody to tell
        with pytest.raises(NoControl):
            await reporter.report(1, truth)
        assert reporter.is_due(1, truth)
        await reporter.report(1, truth)
        assert reporter.replica == "a" * REPLICA_CHARS_MAX
        assert said == [many[:ADDRESSES_MAX]]
        assert not reporter.is_due(1, truth)
        assert not reporter.is_due(1, dict(truth))
        assert reporter.is_due(1, {})
        assert reporter.is_due(1, {**truth, "b": (parse_address("10.0.0.3"),)})
        assert reporter.is_due(2, truth)
        reporter.forget()
        assert reporter.is_due(1, truth)
        await reporter.report(1, truth)
        assert (reporter.replica, reporter.is_due(1, truth)) == ("", False)  # no sense, and heard
        for connects in (2, 3):
            await reporter.report(connects, truth)
            assert (reporter.replica, said[-1]) == ("", [])  # no sense either; and an older one

    asyncio.run(run())
    assert list(sent[-1].captured_uids) == ["a", "b"]
    placed = {each.uid: list(each.addresses) for each in sent[-1].captured_pods}
    assert placed == {"a": list(truth["a"]), "b": []}


def test_namespaces_come_along_when_somebody_wants_them() -> None:
    told: list[tuple[dict[str, bool], list[str]]] = []

    def named(nonce: str, *names: str, removed: Collection[str] = ()) -> bytes:
        message = discovery.DeltaDiscoveryResponse(type_url=NAMESPACE_TYPE, nonce=nonce)
        for name in names:
            resource = message.resources.add(name=name, version="1")
            resource.resource.type_url = NAMESPACE_TYPE
            value = pb.Namespace(name=name.removesuffix("-renamed"), enrols=True)
            resource.resource.value = value.SerializeToString()
        message.removed_resources.extend(removed)
        return message.SerializeToString()

    async def run() -> tuple[Node, Memory]:
        stream = Memory([named("a", "shop", "web-renamed"), response("b", pod("u1"))])
        node = Node([stream])
        intents = Intents(
            "n1",
            "control:1",
            node.connect,
            SystemClock(),
            Backoff(1e-6, 1e-6),
            namespaces=lambda fresh, removed: told.append(
                ({name: each.enrols for name, each in fresh.items()}, list(removed))
            ),
        )
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(intents.run(node.changed))
            await node.done.wait()
            running.cancel()
        return node, stream

    node, stream = asyncio.run(run())
    assert set(node.known) == {"u1"}
    assert told == [({"shop": True}, [])]
    assert [each.type_url for each in stream.written[:2]] == [POD_TYPE, NAMESPACE_TYPE]
    refused = next(each for each in stream.written if each.response_nonce == "a")
    assert "web-renamed" in refused.error_detail.message
