"""A mesh for each module that brings none of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab.mesh_bed import Bed, mesh_bed


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("mesh")) as made:
        yield made
