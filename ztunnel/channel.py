"""gRPC channels to the control plane: TLS, keepalive, bounds, and the caller's token."""

from __future__ import annotations

from pathlib import Path

import grpc
import grpc.aio

from control.kit.errors import ConfigError, ControlError
from control.wire.types import MESSAGE_BYTES_MAX
from ztunnel.config import LiteralToken, read_roots

KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000
CONNECT_TIMEOUT_S = 5.0
TOKEN_BYTES_MAX = 64 * 1024  # a JWT has a few kilobytes


class TokenUnreadable(ControlError):
    reason = "token_unreadable"


class RootsUnreadable(ControlError):
    reason = "roots_unreadable"


def roots_pem(roots: str) -> bytes | None:
    """Read at each use: the file may be replaced, or not be there yet."""
    try:
        return read_roots(roots)
    except ConfigError as exc:
        raise RootsUnreadable(str(exc)) from exc


def open_channel(address: str, pem: bytes | None, name: str) -> grpc.aio.Channel:
    """A lazy channel that trusts these roots (None: the system's)."""
    options: list[tuple[str, object]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        # Reconnecting is our own affair: one channel a stream, and our back-off between two.
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Two channels to one address must not share a connection whose trust was another.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    credentials = grpc.ssl_channel_credentials(pem)
    return grpc.aio.secure_channel(address, credentials, options=options)


def call_metadata(
    token: Path | LiteralToken | None, cluster_id: str
) -> tuple[tuple[str, str], ...]:
    """What authenticates a call. A file is read each time: tokens rotate under us."""
    clusterid = ("clusterid", cluster_id)
    if token is None:
        return (clusterid,)
    if isinstance(token, LiteralToken):
        return (("authorization", f"Bearer {token.secret}"), clusterid)
    try:
        with token.open("rb") as file:
            text = file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as exc:
        raise TokenUnreadable(f"{token}: {exc}") from exc
    return (("authorization", f"Bearer {text}"), clusterid)
