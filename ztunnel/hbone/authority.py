"""`:authority` as a value: `ip:port`, `[v6]:port`, `hostname:port`; parses and formats, no DNS."""

import re
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

# A host name has at most 253 characters, a port five; everything longer is nonsense.
AUTHORITY_CHARS_MAX: Final = 253 + 1 + 5
# The same few targets come again and again; an attacker's variety costs at most this many entries.
_CACHE_ENTRIES: Final = 2_048

_SPLIT: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([0-9A-Za-z_.-]{1,253})):([0-9]{1,5})")
_LABEL: Final = re.compile(r"[0-9a-z_](?:[0-9a-z_-]{0,61}[0-9a-z_])?")

Host = IPv4Address | IPv6Address | str


@dataclass(frozen=True, slots=True)
class Authority:
    """Where a tunnel should lead. A `str` host is a name in lower case, never an address."""

    host: Host
    port: int

    def __str__(self) -> str:
        return format_authority(self.host, self.port)


def unmapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    """One address has one value: a v4-mapped IPv6 address is its IPv4 address."""
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def format_authority(host: Host, port: int) -> str:
    if isinstance(host, str):
        return f"{host}:{port}"
    address = unmapped(host)
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


@lru_cache(maxsize=_CACHE_ENTRIES)
def parse_authority(text: str) -> Authority | None:
    """None for whatever is not exactly a host and a port from 1 to 65535."""
    if len(text) > AUTHORITY_CHARS_MAX:
        return None
    match = _SPLIT.fullmatch(text)
    if match is None:
        return None
    bracketed, plain, digits = match.groups()
    port = int(digits)
    if not 0 < port <= 0xFFFF:
        return None
    host = _parse_v6(bracketed) if bracketed is not None else _parse_plain(plain)
    return None if host is None else Authority(host, port)


def _parse_v6(text: str) -> Host | None:
    try:
        return unmapped(IPv6Address(text))
    except AddressValueError:
        return None


def _parse_plain(text: str) -> Host | None:
    labels = text.lower().removesuffix(".").split(".")
    if labels[-1].isdigit():
        # A name whose last label is a number could be read as an address by somebody else.
        try:
            return IPv4Address(text)
        except AddressValueError:
            return None
    if all(_LABEL.fullmatch(label) for label in labels):
        return ".".join(labels)
    return None
