"""Envoy's messages, by descriptors that were cut out of Envoy itself.

No generated module and nothing named `envoy` to import. The descriptors take some milliseconds and
megabytes: they are read when the first message is encoded. `tests/support/envoy_descriptors.py`
makes the file.
"""

from __future__ import annotations

import gzip
from functools import cache
from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pb2, json_format, message_factory
from google.protobuf.descriptor_pool import DescriptorPool

from control.server.envoy.encoding import TYPE_PREFIX, Encoder

FILE = "descriptors.binpb.gz"


def encode(type_url: str, value: dict[str, Any]) -> bytes:
    """Bytes of a message in JSON form; the same value gives the same bytes.

    ValueError: the value does not have the message's form.
    """
    return _encoder().message(type_url.removeprefix(TYPE_PREFIX), value)


def decode(type_url: str, data: bytes) -> dict[str, Any]:
    """Back to JSON form, for people and tests. Names of fields are those of the proto files."""
    found = _pool().FindMessageTypeByName(type_url.removeprefix(TYPE_PREFIX))
    message = message_factory.GetMessageClass(found).FromString(data)
    shown: dict[str, Any] = json_format.MessageToDict(
        message, preserving_proto_field_name=True, descriptor_pool=_pool()
    )
    return shown


@cache
def _encoder() -> Encoder:
    return Encoder(_pool())


@cache
def _pool() -> DescriptorPool:
    packed = files("control.server.envoy").joinpath(FILE).read_bytes()
    pool = DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString(gzip.decompress(packed)).file:
        pool.Add(each)
    return pool
