"""One resource as bytes: a whole field of a response, to be spliced into any number of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage

from control.model.address import Address, format_address
from control.model.workload import NetworkAddress, Service, Workload
from control.wire import discovery_pb2

RESOURCES_FIELD = 2  # DeltaDiscoveryResponse.resources
ALIASES_FIELD = 4  # Resource.aliases


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
        return () if value is None else tuple(map(_vip_alias, value.addresses))

    def framed_with_aliases(self) -> bytes:
        extra = b"".join(frame(ALIASES_FIELD, alias.encode()) for alias in self.aliases)
        if not extra:
            return self.framed
        return frame(RESOURCES_FIELD, self.framed[self.body_offset :] + extra)


def alias_of(network: str, address: Address) -> str:
    """The name by which an address is asked for."""
    return f"{network}/{format_address(address)}"


def _vip_alias(vip: NetworkAddress) -> str:
    text = alias_of(vip.network, vip.address)
    return text if vip.length is None else f"{text}/{vip.length}"


def frame(field: int, payload: bytes) -> bytes:
    """One length-delimited field of a protobuf message."""
    return bytes([field << 3 | 2]) + varint(len(payload)) + payload


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def make_entry(
    type_url: str,
    name: str,
    message: bytes,
    addressed: Workload | Service | None = None,
    node: str = "",
) -> CachedResource:
    version = hashlib.blake2b(message, digest_size=8).hexdigest()
    body = discovery_pb2.Resource(
        name=name, version=version, resource=AnyMessage(type_url=type_url, value=message)
    ).SerializeToString()
    framed = frame(RESOURCES_FIELD, body)
    return CachedResource(name, version, framed, len(framed) - len(body), addressed, node)
