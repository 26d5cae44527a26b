"""The service for secrets: a stream is answered, and hears of every change."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from control.wire import discovery_pb2 as pb
from tests.unit.ztunnel.waypoint.grpc_fakes import Aborted, Stream
from tests.unit.ztunnel.waypoint.test_secrets import issued, request
from ztunnel.waypoint import sds
from ztunnel.waypoint.sds import Sds


def run(service: Sds, test: Any) -> None:
    async def whole() -> None:
        stream = Stream()
        context: Any = stream
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            serving = tasks.create_task(service.deltas(stream.requests(), context))
            await test(stream, serving)
            stream.say(None)

    asyncio.run(whole())


async def versions(stream: Stream) -> dict[str, str]:
    response = pb.DeltaDiscoveryResponse.FromString(await stream.answers.get())
    return {each.name: each.version for each in response.resources}


def test_a_new_certificate_goes_to_the_open_streams_at_once() -> None:
    service = Sds()

    async def test(stream: Stream, _: asyncio.Task[None]) -> None:
        stream.say(request("default"))
        service.publish_certificate(issued())
        assert service.first.is_set()
        first = await versions(stream)
        service.publish_certificate(issued("KEY2"))
        assert (await versions(stream)).keys() == first.keys() == {"default"}

    run(service, test)
    assert service.streams == 0


def test_a_refusal_is_counted_and_a_stream_goes_on() -> None:
    service = Sds()
    service.publish_certificate(issued())

    async def test(stream: Stream, _: asyncio.Task[None]) -> None:
        stream.say(request("default"))
        await stream.answers.get()
        stream.say(request(response_nonce="1", error_detail=pb.Status(message="no")))
        stream.say(request("ROOTCA"))
        assert (await versions(stream)).keys() == {"ROOTCA"}
        assert service.refused == 1

    run(service, test)


def test_a_stream_that_breaks_the_protocol_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(stream: Stream, serving: asyncio.Task[None]) -> None:
        stream.say(b"\xff\xff")
        await serving

    with pytest.raises(ExceptionGroup) as caught:
        run(Sds(), test)
    assert caught.group_contains(Aborted, match="INVALID_ARGUMENT")
    monkeypatch.setattr(sds, "STREAMS_MAX", 0)
    with pytest.raises(ExceptionGroup) as caught:
        run(Sds(), test)
    assert caught.group_contains(Aborted, match=grpc.StatusCode.RESOURCE_EXHAUSTED.name)
