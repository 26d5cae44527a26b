"""The two services that Envoy finds on unix sockets in our private folder."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import grpc.aio

from control.kit.errors import ConfigError
from control.wire.types import MESSAGE_BYTES_MAX
from ztunnel.waypoint import relay, sds

GRACE_S = 0.5  # for streams, at the end


@asynccontextmanager
async def serving(folder: Path, keys: sds.Sds, way: relay.AdsRelay) -> AsyncIterator[None]:
    """Serve `folder`/ads and `folder`/sds while the context lasts. Each has a server of its own:
    what is for one is not found on the other."""
    ads = _server(folder / "ads", relay.SERVICE, relay.METHOD, way.deltas)
    secrets = _server(folder / "sds", sds.SERVICE, sds.METHOD, keys.deltas)
    try:
        for each in (ads, secrets):
            await each.start()
        yield
    finally:
        for each in (ads, secrets):
            await each.stop(GRACE_S)


def _server(path: Path, service: str, method: str, behaviour: relay.Streams) -> grpc.aio.Server:
    server = grpc.aio.server(
        options=[
            ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
            ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
        ]
    )
    handler = grpc.stream_stream_rpc_method_handler(behaviour)  # bytes in, bytes out
    handlers = grpc.method_handlers_generic_handler(service, {method: handler})
    server.add_generic_rpc_handlers((handlers,))
    try:
        server.add_insecure_port(f"unix:{path}")
    except RuntimeError as exc:
        raise ConfigError(f"cannot listen on {path}: {exc}") from exc
    return server
