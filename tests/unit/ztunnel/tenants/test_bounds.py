"""The bounds of a worker fit into the files that it may open, whatever the host allows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.tenants import bounds
from ztunnel.tenants.bounds import (
    DESCRIPTORS_PER_CONNECTION,
    DESCRIPTORS_RESERVED,
    FAREWELLS,
    HANDSHAKES,
    TUNNELS,
    connections_allowed,
    farewells_allowed,
    handshakes_allowed,
    idle_tunnels_allowed,
    tunnels_allowed,
)
from ztunnel.tenants.portions import Portions, Quota
from ztunnel.tenants.tenancy import QUOTAS


def test_every_bound_has_its_own_place_in_a_tenant() -> None:
    numbers = [each.number for each in vars(bounds).values() if isinstance(each, Quota)]
    assert sorted(numbers) == list(range(QUOTAS))


@given(st.integers(1024, 1 << 21))
def test_descriptors_are_enough_for_all_bounds_at_once(descriptors: int) -> None:
    tunnels = Portions(TUNNELS, tunnels_allowed(descriptors)).total
    handshakes = Portions(HANDSHAKES, handshakes_allowed(descriptors)).total
    farewells = Portions(FAREWELLS, farewells_allowed(descriptors)).total
    connections = connections_allowed(descriptors)
    needed = tunnels + handshakes + farewells + connections * DESCRIPTORS_PER_CONNECTION
    assert needed + DESCRIPTORS_RESERVED <= descriptors
    assert idle_tunnels_allowed(descriptors) < tunnels_allowed(descriptors)
    assert connections * DESCRIPTORS_PER_CONNECTION > descriptors * 0.7 - DESCRIPTORS_RESERVED
