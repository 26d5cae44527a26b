from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.engine.tunnel_bed import App, Bed, bed, echo


@pytest.fixture
def mesh() -> Iterator[Bed]:
    """Both ends of a tunnel on loopback; the inbound side is served."""
    with bed() as made:
        yield made


@pytest.fixture
def app(mesh: Bed) -> Iterator[App]:
    """An echo server at the mesh's address."""
    made = App(mesh.address, echo)
    yield made
    made.close()
