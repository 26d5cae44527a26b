"""gRPC channels from a node to the control plane: TLS, keepalive, bounds, the caller's token."""

from __future__ import annotations

import functools
import ssl
from pathlib import Path

import grpc
import grpc.aio

from control.kit.errors import ControlError, os_error_text
from control.wire.types import MESSAGE_BYTES_MAX

KEEPALIVE_MS = 30_000
KEEPALIVE_TIMEOUT_MS = 10_000  # a dead peer is noticed within 40 s
TOKEN_BYTES_MAX = 64 * 1024  # a JWT has a few kilobytes


class TokenUnreadable(ControlError):
    reason = "token_unreadable"


def open_channel(address: str, pem: bytes | None, name: str) -> grpc.aio.Channel:
    """A lazy channel that trusts these roots (None: the system's). `name` is the name in the
    server's certificate, if it is not the host of `address`."""
    options: list[tuple[str, object]] = [
        ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
        ("grpc.keepalive_time_ms", KEEPALIVE_MS),
        ("grpc.keepalive_timeout_ms", KEEPALIVE_TIMEOUT_MS),
        ("grpc.http2.max_pings_without_data", 0),
        # We reconnect ourselves: one channel a stream, and our back-off between two.
        ("grpc.max_reconnect_backoff_ms", 5_000),
        # Two channels to one address must not share a connection whose trust was another.
        ("grpc.use_local_subchannel_pool", 1),
        ("grpc.enable_http_proxy", 0),
    ]
    if name:
        options.append(("grpc.ssl_target_name_override", name))
    target = target_of(address)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(pem), options=options)


@functools.lru_cache(maxsize=4)  # a certificate is asked for with the same roots again and again
def holds_roots(pem: bytes) -> bool:
    """Does it begin with a certificate, beside comments? Of anything else gRPC says no more than
    "failed to create security handshaker". It takes what comes before the first that is bad."""
    head, end, _ = pem.partition(b"-----END CERTIFICATE-----")
    text = (head + end).decode("ascii", "ignore")
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=text)
    except (ssl.SSLError, ValueError):  # ValueError: nothing in it
        return False
    return True


def target_of(address: str) -> str:
    """The address as gRPC takes it: `[10.0.0.1]:15012` without the brackets, which are for IPv6.

    A manifest cannot know the family of the address that it is given in a variable.
    """
    host, _, port = address.rpartition(":")
    return f"{host[1:-1]}:{port}" if host[:1] == "[" and ":" not in host else address


def read_token(path: Path) -> str:
    """Read a token file, at each use: tokens rotate under us. Raises TokenUnreadable."""
    try:
        with path.open("rb") as file:
            return file.read(TOKEN_BYTES_MAX).decode("ascii").strip()
    except OSError as exc:
        raise TokenUnreadable(os_error_text(exc)) from exc
    except UnicodeDecodeError as exc:
        raise TokenUnreadable(f"{path}: no token: it holds more than ASCII") from exc


def bearer(token: str) -> tuple[str, str]:
    return ("authorization", f"Bearer {token}")
