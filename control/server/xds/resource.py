"""One resource as bytes: a whole field of a response, to be spliced into any number of them."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from google.protobuf.any_pb2 import Any as AnyMessage

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
    aliases: tuple[str, ...] = ()
    node: str = ""  # set when only this node may see it

    def framed_with_aliases(self) -> bytes:
        if not self.aliases:
            return self.framed
        extra = b"".join(frame(ALIASES_FIELD, alias.encode()) for alias in self.aliases)
        return frame(RESOURCES_FIELD, self.framed[self.body_offset :] + extra)


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
    type_url: str, name: str, message: bytes, aliases: tuple[str, ...] = (), node: str = ""
) -> CachedResource:
    version = hashlib.blake2b(message, digest_size=8).hexdigest()
    body = discovery_pb2.Resource(
        name=name, version=version, resource=AnyMessage(type_url=type_url, value=message)
    ).SerializeToString()
    framed = frame(RESOURCES_FIELD, body)
    return CachedResource(name, version, framed, len(framed) - len(body), aliases, node)
