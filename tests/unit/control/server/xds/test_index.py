"""The index of names: kept up by changes, it is the one that is made anew."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from control.model.address import parse_address
from control.model.workload import NetworkAddress, OuterAddress, Service, Workload
from control.server.xds.index import Index
from control.server.xds.resource import make_entry
from control.wire.types import ADDRESS_TYPE

NAMES = st.sampled_from("abcd")
WORKLOADS = st.builds(
    lambda address, service, node: Workload(
        uid="u",
        name="u",
        namespace="ns",
        addresses=(parse_address(f"10.0.0.{address}"),),
        services={service: ()} if service else {},
        node=node,
    ),
    st.integers(1, 2),
    st.sampled_from(["", "x", "y"]),
    st.sampled_from(["", "n1", "n2"]),
)
WEB = Service("web", "ns", "web.ns.svc", (NetworkAddress("", parse_address("10.0.0.1")),))
FAR = Service(
    "far",
    "ns",
    "far.ns.svc",
    (NetworkAddress("", parse_address("10.0.0.0"), 24),),
    outer_addresses=(OuterAddress("", parse_address("10.1.0.1"), (80,)),),
)
CHANGES = st.lists(
    st.tuples(NAMES, st.one_of(st.none(), st.just(WEB), st.just(FAR), WORKLOADS)), max_size=12
)


def tables(index: Index) -> list[dict[Any, set[str]]]:
    found = (index.addresses, index.aliases, index.members, index.on_node, index.blocks)
    tables: list[dict[Any, Any]] = list(found)
    return [{key: set(names) for key, names in each.items()} for each in tables]


def made_of(values: Mapping[str, Workload | Service]) -> Index:
    index = Index()
    for name, value in values.items():
        index.add(name, value)
    return index


@given(CHANGES)
def test_followed_and_made_anew_are_the_same(
    changes: list[tuple[str, Workload | Service | None]],
) -> None:
    index, values = Index(), {}
    for name, value in changes:
        if name in values:
            index.remove(name, values.pop(name))
        if value is not None:
            values[name] = value
            index.add(name, value)
        assert tables(index) == tables(made_of(values))


def test_an_address_is_found_in_a_block_and_behind_some_ports() -> None:
    index = made_of({"far": FAR, "web": WEB})
    assert index.at("/10.0.0.1") == ("web", "far")
    assert index.at("/10.0.0.9") == ("far",)
    assert index.at("/10.1.0.1") == ("far",)
    assert index.at("x/10.0.0.9") == index.at("nonsense") == index.at("/fd00::1") == ()
    assert index.at("/10.0.0.0/24") == ("far",)
    aliases = make_entry(ADDRESS_TYPE, "far", b"", FAR).aliases
    assert aliases == ("/10.0.0.0/24",), "no other client can use the outer one"


def test_an_address_is_found_in_the_form_that_a_response_has_alone() -> None:
    address = parse_address("fd00::a")
    index = made_of({"web": Service("web", "ns", "web.ns.svc", (NetworkAddress("", address),))})
    assert index.at("/fd00::a") == ("web",)
    assert index.at("/FD00::A") == index.at("/fd00:0::a") == ()
