"""Intents as bytes: what one end writes the other reads, and nothing else gets through."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.model.address import canonical, parse_address
from control.model.intent import PROBE_PORTS_MAX, Intent, NamespaceIntent
from control.wire import node_pb2 as pb
from control.wire.convert_node import (
    decode_intent,
    decode_namespace,
    encode_intent,
    encode_namespace,
)

NAMES = st.text(min_size=1, max_size=12)
PACKED = st.one_of(st.binary(min_size=4, max_size=4), st.binary(min_size=16, max_size=16))
INTENTS = st.builds(
    Intent,
    uid=NAMES,
    name=NAMES,
    namespace=NAMES,
    service_account=NAMES,
    node=st.text(max_size=12),
    addresses=st.lists(PACKED.map(canonical), max_size=3).map(tuple),
    enrolled=st.booleans(),
    reason=st.text(max_size=20),
    direct=st.booleans(),
    direct_reason=st.text(max_size=20),
    probe_ports=st.lists(st.integers(1, 65535), max_size=3).map(tuple),
)


def pod(**fields: Any) -> bytes:
    values = {"uid": "u1", "name": "web", "namespace": "shop", "node": "n1"}
    return pb.Pod(**{**values, **fields}).SerializeToString()


@given(INTENTS)
def test_an_intent_survives_the_wire(value: Intent) -> None:
    assert decode_intent(encode_intent(value)) == value


def test_the_bytes_are_those_of_the_message() -> None:
    value = Intent("u1", "web", "shop", "sa", "n1", (b"\x0a\0\0\1",), True, "why", True, "")
    assert encode_intent(value) == pod(
        service_account="sa", addresses=[b"\x0a\0\0\1"], enrolled=True, reason="why", direct=True
    )


def test_defaults_are_filled_in_and_mapped_addresses_are_ipv4() -> None:
    found = decode_intent(pod(addresses=[bytes(10) + b"\xff\xff\x0a\0\0\2"]))
    assert found.service_account == "default"
    assert found.addresses == (parse_address("10.0.0.2"),)
    assert not found.enrolled
    assert not found.direct


def test_no_more_ports_of_probes_are_read_than_there_is_room_for() -> None:
    found = decode_intent(pod(probe_ports=range(1, 100)))
    assert found.probe_ports == tuple(range(1, PROBE_PORTS_MAX + 1))


@pytest.mark.parametrize(
    "data",
    [b"\xff", pod(uid=""), pod(name=""), pod(namespace=""), pod(addresses=[b"123"])]
    + [pod(probe_ports=[port]) for port in (0, 65536)],
)
def test_what_is_not_an_intent_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_intent(data)


@given(st.binary(max_size=100))
def test_any_bytes_are_an_intent_or_a_wire_error(data: bytes) -> None:
    try:
        decode_intent(data)
    except WireError:
        return


@pytest.mark.parametrize("enrols", [True, False])
@pytest.mark.parametrize("name", ["a", "shop", "0-9", "x" * 63])
def test_a_namespace_survives_the_wire(name: str, enrols: bool) -> None:
    value = NamespaceIntent(name, enrols)
    assert decode_namespace(encode_namespace(value)) == value


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a\nend", "x" * 64, "é"])
def test_what_is_no_name_of_a_namespace_is_refused(name: str) -> None:
    """It becomes a line of a file."""
    with pytest.raises(WireError):
        decode_namespace(pb.Namespace(name=name).SerializeToString())


def test_what_is_no_namespace_is_refused() -> None:
    with pytest.raises(WireError):
        decode_namespace(b"\xff")
