"""One resource as bytes: what protobuf reads of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.model.address import parse_address
from control.model.workload import NetworkAddress, Service, Workload
from control.server.xds.resource import make_entry
from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE


def parsed(framed: bytes) -> pb.Resource:
    (resource,) = pb.DeltaDiscoveryResponse.FromString(framed).resources
    return resource


V4, V6 = parse_address("10.0.0.1"), parse_address("fd00::1")
VIPS = NetworkAddress("net", V4), NetworkAddress("", V6, 64)


@pytest.mark.parametrize(
    ("value", "aliases"),
    [
        (None, []),
        (Workload("uid"), []),
        (Workload("uid", addresses=(V4, V6), network="net"), ["net/10.0.0.1", "net/fd00::1"]),
        (Service("s", "ns", "s.ns", VIPS), ["net/10.0.0.1", "/fd00::1/64"]),
    ],
)
@given(name=st.text(max_size=200), message=st.binary(max_size=300))
def test_an_entry_is_a_field_of_a_response(
    value: Workload | Service | None, aliases: list[str], name: str, message: bytes
) -> None:
    entry = make_entry(ADDRESS_TYPE, name, message, value)
    plain, full = parsed(entry.framed), parsed(entry.framed_with_aliases())
    assert list(plain.aliases) == []
    assert list(full.aliases) == aliases
    for each in (plain, full):
        assert (each.name, each.version) == (name, entry.version)
        assert (each.resource.type_url, each.resource.value) == (ADDRESS_TYPE, message)
