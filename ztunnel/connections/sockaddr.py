"""Addresses as the kernel gives them: a socket's names, and the destination that an app dialled."""

from __future__ import annotations

import socket
import struct
from functools import lru_cache
from typing import Final

from control.model.address import Address, Endpoint, canonical
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.roles import Asked

# The endpoint an app dialled, and where the kernel's own draw among a service's endpoints fell.
Original = tuple[Asked, Hint]

# Addresses of a node's pods and peers, and destinations in use: each is parsed once.
ADDRESSES_KEPT_MAX: Final = 4096
_SO_ORIGINAL_DST: Final = 80
_SOL_IP: Final = int(socket.SOL_IP)
_IPV4_BYTES: Final = struct.calcsize("=HHI8x")
_IPV6_BYTES: Final = struct.calcsize("=HHI16sI")
_FAMILY_IPV6: Final = struct.pack("=H", socket.AF_INET6)
_HINT_AT_IPV4: Final = struct.calcsize("=HHI")
_HINT_AT_IPV6: Final = struct.calcsize("=HHI") - 1
_HINTS: Final = {each.value: each for each in Hint}


def endpoint_of(name: tuple[str | int, ...]) -> Endpoint:
    """Parse a name from accept, getsockname or getpeername; v4-mapped becomes IPv4."""
    return Endpoint(_address_of(str(name[0])), int(name[1]))


@lru_cache(maxsize=ADDRESSES_KEPT_MAX)
def _address_of(host: str) -> Address:
    if ":" in host:
        return canonical(socket.inet_pton(socket.AF_INET6, host.partition("%")[0]))
    return canonical(socket.inet_pton(socket.AF_INET, host))


def original_destination(sock: socket.socket) -> Original | None:
    """Ask the kernel half which destination the app dialled; None if it does not know."""
    try:
        raw = sock.getsockopt(_SOL_IP, _SO_ORIGINAL_DST, _IPV4_BYTES)
        return parse_original(raw)
    except OSError:
        pass
    try:
        return parse_original(sock.getsockopt(socket.IPPROTO_IPV6, _SO_ORIGINAL_DST, _IPV6_BYTES))
    except OSError:
        return None


@lru_cache(maxsize=ADDRESSES_KEPT_MAX)
def parse_original(raw: bytes) -> Original | None:
    """Parse a sockaddr and the hint inside it; None if it is no sockaddr.

    The hint is in a byte that otherwise says nothing: the first of `sin_zero`, the last of
    `sin6_flowinfo`. A value that is no hint means that there is none.
    """
    where = parse_sockaddr(raw)
    if where is None:
        return None
    is_ipv6 = len(raw) >= 24 and raw[:2] == _FAMILY_IPV6
    said = raw[_HINT_AT_IPV6] if is_ipv6 else raw[_HINT_AT_IPV4] if len(raw) > _HINT_AT_IPV4 else 0
    return Asked(where), _HINTS.get(said, Hint.NONE)


def parse_sockaddr(raw: bytes) -> Endpoint | None:
    """Parse a kernel sockaddr_in or sockaddr_in6; None if it is neither, or has no port."""
    if len(raw) < 8:
        return None
    (family,) = struct.unpack_from("=H", raw)
    (port,) = struct.unpack_from("!H", raw, 2)
    if not port:
        return None
    if family == socket.AF_INET:
        return Endpoint(canonical(raw[4:8]), port)
    if family == socket.AF_INET6 and len(raw) >= 24:
        return Endpoint(canonical(raw[8:24]), port)
    return None
