"""Frames and numbers are protobuf's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control.wire import discovery_pb2 as pb
from control.wire import workload_pb2
from control.wire.framing import fields_of, frame, varint

SIZES = st.integers(0, 300) | st.sampled_from([127, 128, 0x3FFF, 0x4000, 0x1FFFFF, 0x200000])


@given(st.integers(0, 2**40) | SIZES)
def test_a_varint_is_protobufs(number: int) -> None:
    data = varint(number)
    assert sum((byte & 0x7F) << 7 * index for index, byte in enumerate(data)) == number
    assert [byte >> 7 for byte in data] == [1] * (len(data) - 1) + [0]


@given(SIZES)
def test_a_frame_is_a_field_of_a_message(size: int) -> None:
    message = pb.DeltaDiscoveryResponse.FromString(frame(6, b"n" * size))
    assert message.removed_resources == ["n" * size]


def test_a_frame_has_its_tag_and_length() -> None:
    assert frame(4, b"x" * 200) == b"\x22\xc8\x01" + b"x" * 200
    assert frame(20, b"x") == b"\xa2\x01\x01x"


def test_a_message_is_its_fields() -> None:
    message = workload_pb2.Workload(
        name="n" * 300, uid="u", tunnel_protocol=1, locality={"zone": "z"}, addresses=[b"1234"] * 2
    )
    data = message.SerializeToString(deterministic=True)
    found = list(fields_of(data))
    assert [number for number, _ in found] == [1, 3, 3, 5, 20, 24]
    assert b"".join(each for _, each in found) == data
    fixed = b"\x09" + bytes(8) + b"\x15" + bytes(4)  # as of a double and a float
    assert list(fields_of(fixed)) == [(1, fixed[:9]), (2, fixed[9:])]
