"""Names and addresses: distinct for every node, pod and service."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from agent.lab import plan


def test_nodes_do_not_overlap() -> None:
    nodes = [plan.node_plan("x", f"n{index}", index) for index in range(1, 51)]
    networks = [ip_network(text) for node in nodes for text in (node.pods_v4, node.pods_v6)]
    assert len(set(networks)) == 100
    ends = [text for node in nodes for pair in (node.address, node.router) for text in pair.both]
    assert len({ip_address(text) for text in ends}) == 200


def test_a_pod_gets_the_first_free_address_of_its_nodes_range() -> None:
    node = plan.node_plan("x", "n3", 3)
    taken: list[str] = []
    for _ in range(600):
        pair = plan.pod_address(3, taken)
        assert ip_address(pair.v4) in ip_network(node.pods_v4)
        assert ip_address(pair.v6) in ip_network(node.pods_v6)
        taken.append(pair.v4)
    assert len(set(taken)) == 600
    freed = taken.pop(17)
    assert plan.pod_address(3, taken).v4 == freed


def test_a_full_node_is_an_error() -> None:
    class Everything:
        def __iter__(self) -> object:
            return iter(
                f"10.71.{1 + number // 250}.{number % 250 + 1}" for number in range(1, 250 * 250)
            )

    with pytest.raises(ValueError, match="node 1 has no free address"):
        plan.pod_address(1, Everything())  # type: ignore[arg-type]  # iterable all the same


def test_service_addresses_come_in_pairs_from_the_ranges() -> None:
    first = plan.service_address([])
    assert first.both == ("172.20.0.10", "fd72::a")
    assert plan.service_address([first.v4]).both == ("172.20.0.11", "fd72::b")
    assert plan.service_address(["fd72:0::a"]).both == ("172.20.0.11", "fd72::b")
    for text, network in zip(first.both, plan.SERVICE_RANGES, strict=True):
        assert ip_address(text) in ip_network(network)
