"""The sockets for Envoy: one service each, in a private folder."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest

from control.kit.errors import ConfigError
from control.wire import discovery_pb2 as pb
from control.wire.types import DELTA_METHOD
from tests.unit.ztunnel.waypoint.test_relay import made
from tests.unit.ztunnel.waypoint.test_secrets import issued, request
from ztunnel.waypoint import sds
from ztunnel.waypoint.sds import Sds
from ztunnel.waypoint.services import serving

SECRETS = f"/{sds.SERVICE}/{sds.METHOD}"


async def first(path: Path, method: str, data: bytes) -> bytes | grpc.StatusCode:
    """The first answer, or the code of the refusal."""
    async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
        call = channel.stream_stream(method, bytes, bytes)(None)
        try:
            await call.write(data)
            answer = await call.read()
            return answer if isinstance(answer, bytes) else await call.code()
        except grpc.aio.AioRpcError as exc:
            return exc.code()


def test_each_socket_has_its_own_service(tmp_path: Path) -> None:
    keys = Sds()
    keys.publish_certificate(issued())

    async def test() -> None:
        async with asyncio.timeout(30), serving(tmp_path, keys, made(tmp_path)):
            answer = await first(tmp_path / "sds", SECRETS, request("default"))
            assert isinstance(answer, bytes)
            assert pb.DeltaDiscoveryResponse.FromString(answer).resources[0].name == "default"
            elsewhere = await first(tmp_path / "ads", SECRETS, request("default"))
            assert elsewhere is grpc.StatusCode.UNIMPLEMENTED
            away = await first(tmp_path / "ads", DELTA_METHOD, b"")
            assert away is grpc.StatusCode.UNAVAILABLE

    asyncio.run(test())


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    async def test() -> None:
        async with serving(tmp_path / "none", Sds(), made(tmp_path)):
            pass

    with pytest.raises(ConfigError):
        asyncio.run(test())
