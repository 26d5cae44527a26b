"""Workloads and services → bytes of their messages: the canonical ones, made cheaply. Pure.

The pods of a Deployment differ in four fields and their node's place. All the rest is encoded once,
and their own fields are put in between, each where its number wants it: the version of a resource
is a hash of these bytes, so nothing may show how they came to be.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from dataclasses import fields
from functools import lru_cache
from operator import attrgetter
from typing import Any

from control.model.workload import Locality, Port, Service, Workload
from control.wire import workload_pb2 as pb
from control.wire.convert import resource_to_wire, workload_to_wire
from control.wire.framing import fields_of, frame, tag, varint

# Pods come from a source one Deployment after the other; some 500 bytes each.
SHARED_MAX = 1024
LOCALITIES_MAX = 1024  # a handful of zones; some 50 bytes each

_NUMBERS = {name: each.number for name, each in pb.Workload.DESCRIPTOR.fields_by_name.items()}
_OWN = ("name", "addresses", "node", "uid", "locality")  # by number
_OWN_NUMBERS = [_NUMBERS[name] for name in _OWN]
_NAME, _ADDRESS, _NODE, _UID, _ = map(tag, _OWN_NUMBERS)
_WORKLOAD = pb.Address.DESCRIPTOR.fields_by_name["workload"].number
_SERVICES = "services"  # a mapping, which no table takes as a key
_SHARED = tuple(
    each.name for each in fields(Workload) if each.name not in _OWN and each.name != _SERVICES
)
_shared_of = attrgetter(*_SHARED)
_Services = tuple[tuple[str, tuple[Port, ...]], ...]


def encode_address(value: Workload | Service) -> bytes:
    """The bytes of an Address, as `resource_to_wire` says and protobuf writes it."""
    if isinstance(value, Workload):
        return frame(_WORKLOAD, _encode_workload(value))
    return resource_to_wire(value).SerializeToString(deterministic=True)


def _encode_workload(value: Workload) -> bytes:
    first, second, third, fourth, fifth, last = _parts(
        _shared_of(value), tuple(value.services.items())
    )
    place = value.locality
    addresses = [_ADDRESS + varint(len(each)) + each for each in value.addresses]
    return b"".join(
        (
            first,
            _text(_NAME, value.name),
            second,
            *addresses,
            third,
            _text(_NODE, value.node),
            fourth,
            _text(_UID, value.uid),
            fifth,
            _locality(place.region, place.zone, place.subzone),
            last,
        )
    )


def _text(start: bytes, text: str) -> bytes:
    """A field of text; an empty one is left out."""
    if not text:
        return b""
    data = text.encode()
    return start + varint(len(data)) + data


@lru_cache(SHARED_MAX)
def _parts(shared: tuple[Any, ...], services: _Services) -> list[bytes]:
    """The bytes that stand before each of the own fields, and after the last."""
    value = Workload(uid="", **dict(zip(_SHARED, shared, strict=True)), services=dict(services))
    parts = [b""] * (len(_OWN) + 1)
    for number, data in _fields_of(value):
        parts[bisect(_OWN_NUMBERS, number)] += data
    return parts


@lru_cache(LOCALITIES_MAX)
def _locality(region: str, zone: str, subzone: str) -> bytes:
    """The field; nothing for no place."""
    found = dict(_fields_of(Workload(uid="", locality=Locality(region, zone, subzone))))
    return found.get(_NUMBERS["locality"], b"")


def _fields_of(value: Workload) -> Iterator[tuple[int, bytes]]:
    return fields_of(workload_to_wire(value).SerializeToString(deterministic=True))
