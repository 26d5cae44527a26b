"""Our extensions: there and back, absent when they say nothing, refused when they are nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model.address import canonical, parse_address
from control.model.workload import OuterAddress, Service, Workload
from control.wire import extension_pb2, extensions
from control.wire import workload_pb2 as pb
from control.wire.convert import resource_from_wire, resource_to_wire

OUTER = st.builds(
    OuterAddress,
    network=st.sampled_from(["", "far"]),
    address=(st.binary(min_size=4, max_size=4) | st.binary(min_size=16, max_size=16)).map(
        canonical
    ),
    ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple),
)
GOOD = OuterAddress("", parse_address("192.0.2.1"), (80,))


@given(st.lists(OUTER, max_size=3).map(tuple), st.integers(0, 86400))
def test_a_service_there_and_back(outer: tuple[OuterAddress, ...], affinity_s: int) -> None:
    value = Service("s", "ns", "h", outer_addresses=outer, affinity_s=affinity_s)
    message = resource_to_wire(value)
    assert resource_from_wire(message) == value
    assert bool(message.service.extensions) is bool(outer or affinity_s)
    assert not message.service.addresses, "a foreign ztunnel must not take them for VIPs"


@pytest.mark.parametrize("node", ["", "n1"])
@pytest.mark.parametrize("last_resort", [True, False])
def test_a_workload_there_and_back(last_resort: bool, node: str) -> None:
    value = Workload("u", last_resort=last_resort, endpoint_node=node)
    message = resource_to_wire(value)
    assert resource_from_wire(message) == value
    assert bool(message.workload.extensions) is (last_resort or bool(node))
    assert message.workload.node == ""


def test_extensions_of_others_mean_nothing() -> None:
    foreign = pb.Extension(name="example.com/x")
    foreign.config.value = b"\xff"
    assert extensions.read_service([foreign]) == ((), 0)
    assert extensions.read_workload([foreign]) == (False, "")


def broken(**fields: object) -> pb.Extension:
    made = pb.Extension(name=extensions.SERVICE)
    made.config.Pack(extension_pb2.ServiceExtension(**fields))  # type: ignore[arg-type]  # nonsense
    return made


@pytest.mark.parametrize(
    "extension",
    [
        broken(affinity_s=86401),
        broken(outer_addresses=[{"address": {"address": b"123"}}]),
        broken(outer_addresses=[{"address": {"address": b"1234"}, "ports": [0]}]),
        broken(outer_addresses=[{"address": {"address": b"1234"}, "ports": [65536]}]),
        broken(outer_addresses=[{"address": {"address": b"1234"}}] * 4097),
        broken(outer_addresses=[{"address": {"address": b"1234"}, "ports": [80] * 1025}] * 4),
    ],
)
def test_nonsense_is_refused(extension: pb.Extension) -> None:
    with pytest.raises(WireError):
        extensions.read_service([extension])


def test_bytes_that_are_no_message_are_refused() -> None:
    made = pb.Extension(name=extensions.SERVICE)
    made.config.value = b"\xff"
    with pytest.raises(WireError):
        extensions.read_service([made])
    made.name = extensions.WORKLOAD
    with pytest.raises(WireError):
        extensions.read_workload([made])
