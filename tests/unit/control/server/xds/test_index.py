"""The index of names: kept up by changes, it is the one that is made anew."""

from __future__ import annotations

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
    found = (index.aliases, index.members, index.on_node, index.blocks)
    tables: list[dict[Any, Any]] = list(found)
    return [{key: set(names) for key, names in each.items()} for each in tables]


@given(CHANGES)
def test_followed_and_made_anew_are_the_same(
    changes: list[tuple[str, Workload | Service | None]],
) -> None:
    index, values, entries = Index({}, {}), {}, {}
    for name, value in changes:
        if name in values:
            index.remove(name, values.pop(name), entries.pop(name))
        if value is not None:
            entry = make_entry(ADDRESS_TYPE, name, b"", value)
            values[name], entries[name] = value, entry
            index.add(name, value, entry)
        assert tables(index) == tables(Index(values, entries))


def test_an_address_is_found_in_a_block_and_behind_some_ports() -> None:
    values = {"far": FAR, "web": WEB}
    entries = {name: make_entry(ADDRESS_TYPE, name, b"", each) for name, each in values.items()}
    index = Index(values, entries)
    assert index.at("/10.0.0.1") == ("web", "far")
    assert index.at("/10.0.0.9") == ("far",)
    assert index.at("/10.1.0.1") == ("far",)
    assert index.at("x/10.0.0.9") == index.at("nonsense") == index.at("/fd00::1") == ()
    assert entries["far"].aliases == ("/10.0.0.0/24",), "no other client can use the outer one"
