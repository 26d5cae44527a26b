"""Network addresses as packed bytes: 4 bytes for IPv4, 16 for IPv6, never a v4-mapped form.

Packed bytes hash and compare several times faster than `ipaddress` objects, and they are what the
wire carries. Text is parsed at the edges, once.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NewType

Address = NewType("Address", bytes)

FORMATTED_MAX = 8192  # texts kept: the peers of a busy node, less than a megabyte

_IPV4 = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")
_GROUPS = r"[0-9a-fA-F]{1,4}(?::[0-9a-fA-F]{1,4})*"
_IPV6 = re.compile(rf"(?:{_GROUPS})?::(?:{_GROUPS})?|{_GROUPS}")
_PREFIX_LENGTH = re.compile("0|[1-9][0-9]{0,2}")
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"


def canonical(packed: bytes) -> Address:
    """4 or 16 packed bytes → the canonical form (`::ffff:a.b.c.d` becomes IPv4).

    Raises ValueError for any other length.
    """
    if len(packed) == 16:
        return Address(packed[12:] if packed.startswith(_MAPPED_PREFIX) else packed)
    if len(packed) == 4:
        return Address(packed)
    raise ValueError(f"an address has 4 or 16 bytes, not {len(packed)}")


def parse_address(text: str) -> Address:
    """`10.0.0.1`, `fd00::1`, `::ffff:10.0.0.1` → canonical bytes; ValueError otherwise.

    A scope (`fe80::1%eth0`) is refused: it means nothing on another host.
    """
    if "%" in text:
        raise ValueError(f"an address with a scope cannot be used here: {text!r}")
    found = _quickly(text)
    return canonical(ipaddress.ip_address(text).packed if found is None else found)


def _quickly(text: str) -> bytes | None:
    """A third of the library's time, of the usual forms: 50,000 pods have 100,000 addresses. None:
    another form, or no address."""
    try:
        if _IPV4.fullmatch(text):
            return bytes(map(int, text.split(".")))  # ValueError: more than 255
        if not _IPV6.fullmatch(text):
            return None
        head, gap, tail = text.partition("::")
        first = [each.zfill(4) for each in head.split(":")] if head else []
        last = [each.zfill(4) for each in tail.split(":")] if tail else []
        missing = 8 - len(first) - len(last)
        if (missing < 1) if gap else missing:
            return None
        return bytes.fromhex("".join([*first, "0000" * missing, *last]))
    except ValueError:
        return None


@lru_cache(maxsize=FORMATTED_MAX)
def format_address(address: bytes) -> str:
    """The usual text form. Cached: access logs print the same few addresses over and over."""
    if len(address) == 4:
        return ".".join(map(str, address))
    return str(ipaddress.ip_address(address))


def host_text(address: Address) -> str:
    """The text form before a port: `10.0.0.1`, `[fd00::1]`."""
    text = format_address(address)
    return f"[{text}]" if len(address) == 16 else text


def mapped(address: Address) -> bytes:
    """The 16-byte form of kernel tables: IPv4 becomes `::ffff:a.b.c.d`."""
    return _MAPPED_PREFIX + address if len(address) == 4 else bytes(address)


def is_loopback(address: Address) -> bool:
    """127.0.0.0/8 and ::1."""
    return address[0] == 127 if len(address) == 4 else address == bytes(15) + b"\x01"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One TCP address and port."""

    address: Address
    port: int

    def __str__(self) -> str:
        return f"{host_text(self.address)}:{self.port}"


def parse_endpoint(text: str) -> Endpoint:
    """`10.0.0.1:80` or `[fd00::1]:80`; ValueError otherwise."""
    host, colon, port_text = text.rpartition(":")
    if not colon or not port_text.isascii() or not port_text.isdigit() or len(port_text) > 5:
        raise ValueError(f"not address:port: {text!r}")
    bracketed = host.startswith("[") and host.endswith("]")
    if bracketed != (":" in host):
        raise ValueError(f"an IPv6 address needs brackets, an IPv4 address has none: {text!r}")
    port = int(port_text)
    if not 0 < port < 65536:
        raise ValueError(f"port out of range in {text!r}")
    return Endpoint(parse_address(host[1:-1] if bracketed else host), port)


@dataclass(frozen=True, slots=True)
class CidrBlock:
    """A CIDR block. Bits behind the prefix are ignored, as Kubernetes users expect."""

    address: Address
    length: int

    def __post_init__(self) -> None:
        if not 0 <= self.length <= 8 * len(self.address):
            raise ValueError(f"prefix length {self.length} does not fit {self}")

    def __contains__(self, address: object) -> bool:
        if not isinstance(address, bytes) or len(address) != len(self.address):
            return False
        shift = 8 * len(address) - self.length
        return int.from_bytes(address) >> shift == int.from_bytes(self.address) >> shift

    def __str__(self) -> str:
        return f"{format_address(self.address)}/{self.length}"


def parse_block(text: str) -> CidrBlock:
    """`10.0.0.0/8`, `fd00::/8` or a bare address (its full length); ValueError otherwise.

    A v4-mapped block (`::ffff:10.0.0.0/104`) becomes its IPv4 block. A scope is refused, as in
    `parse_address`.
    """
    head, slash, length_text = text.partition("/")
    if "%" in head:
        raise ValueError(f"a block with a scope cannot be used here: {text!r}")
    raw = ipaddress.ip_address(head)
    address = canonical(raw.packed)
    if slash and not _PREFIX_LENGTH.fullmatch(length_text):
        raise ValueError(f"not a prefix length: {text!r}")
    length = int(length_text) if slash else raw.max_prefixlen
    if raw.version == 6 and len(address) == 4:
        if length < 96:
            raise ValueError(f"a v4-mapped block needs a prefix of 96 or longer: {text!r}")
        length -= 96
    return CidrBlock(address, length)
