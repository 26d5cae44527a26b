"""One node with its kernel half, and pods on one network."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.kernel.datapath import Bed, node_bed
from tests.support.kernel.netns import Network, Pod


@pytest.fixture
def bed() -> Iterator[Bed]:
    with node_bed() as made:
        yield made


@pytest.fixture
def network() -> Iterator[Network]:
    with Network("tk") as made:
        yield made


@pytest.fixture
def pod(network: Network) -> Pod:
    return network.pod("app", "10.77.0.2", "fd77::2")


@pytest.fixture
def far(network: Network) -> Pod:
    """A pod that is not captured, unless a test does so."""
    return network.pod("far", "10.77.0.9", "fd77::9")
