"""Bytes that were put together are those of the whole message, whatever was encoded before."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.workload import Locality
from control.wire import workload_pb2
from control.wire.address_bytes import encode_address
from control.wire.convert import resource_from_wire, resource_to_wire
from tests.unit.control.wire.test_convert import NAMES, SERVICES, WORKLOADS

LONG = "n" * 200  # its length takes two bytes
TEXTS = st.sampled_from(["", "a", "ä", LONG])


@settings(max_examples=100)
@given(WORKLOADS | SERVICES)
def test_the_bytes_are_those_of_the_message(value: Any) -> None:
    assert encode_address(value) == resource_to_wire(value).SerializeToString(deterministic=True)


@settings(max_examples=50)
@given(st.lists(st.tuples(WORKLOADS, TEXTS, TEXTS, TEXTS, NAMES), max_size=3))
def test_workloads_that_are_alike_differ_in_what_is_their_own(found: list[Any]) -> None:
    for like, name, node, uid, zone in found:
        more = replace(like, last_resort=True, endpoint_node="n1", workload_name=LONG)
        for base in (like, more):
            place = Locality(zone=zone)
            value = replace(base, name=name, node=node, uid=f"u{uid}", locality=place)
            data = encode_address(value)
            assert data == resource_to_wire(value).SerializeToString(deterministic=True)
            assert resource_from_wire(workload_pb2.Address.FromString(data)) == value
