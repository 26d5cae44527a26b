"""One resource as bytes: a whole field of a response, to be spliced into any number of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache

from control.model.address import Address, format_address
from control.model.workload import NetworkAddress, Service, Workload
from control.wire.framing import frame

RESOURCES_FIELD = 2  # DeltaDiscoveryResponse.resources
# Resource, and the Any in it.
_VERSION_FIELD, _ANY_FIELD, _NAME_FIELD, ALIASES_FIELD = 1, 2, 3, 4
_TYPE_URL_FIELD, _VALUE_FIELD = 1, 2


@dataclass(frozen=True, slots=True, eq=False)
class CachedResource:
    """`framed` is the whole `resources` field of a response: tag, length, Resource."""

    name: str
    version: str
    framed: bytes
    body_offset: int
    addressed: Workload | Service | None = None
    node: str = ""  # set when only this node may see it

    @property
    def aliases(self) -> tuple[str, ...]:
        """Names by address, for those who ask on demand: made when they do."""
        value = self.addressed
        if isinstance(value, Workload):
            return tuple(alias_of(value.network, each) for each in value.addresses)
        return () if value is None else tuple(map(vip_alias, value.addresses))

    def framed_with_aliases(self) -> bytes:
        extra = b"".join(frame(ALIASES_FIELD, alias.encode()) for alias in self.aliases)
        if not extra:
            return self.framed
        return frame(RESOURCES_FIELD, self.framed[self.body_offset :] + extra)


def alias_of(network: str, address: Address) -> str:
    """The name by which an address is asked for."""
    return f"{network}/{format_address(address)}"


def vip_alias(vip: NetworkAddress) -> str:
    """The same of a virtual address, with its length if it says one."""
    text = alias_of(vip.network, vip.address)
    return text if vip.length is None else f"{text}/{vip.length}"


def make_entry(
    type_url: str,
    name: str,
    message: bytes,
    addressed: Workload | Service | None = None,
    node: str = "",
) -> CachedResource:
    version = hashlib.blake2b(message, digest_size=8).hexdigest()
    body = frame(_VERSION_FIELD, version.encode()) + frame(_ANY_FIELD, _any(type_url, message))
    if name:
        body += frame(_NAME_FIELD, name.encode())
    framed = frame(RESOURCES_FIELD, body)
    return CachedResource(name, version, framed, len(framed) - len(body), addressed, node)


def _any(type_url: str, message: bytes) -> bytes:
    """A google.protobuf.Any."""
    start = _type_of(type_url)
    return start + frame(_VALUE_FIELD, message) if message else start


@cache
def _type_of(type_url: str) -> bytes:
    return frame(_TYPE_URL_FIELD, type_url.encode())
