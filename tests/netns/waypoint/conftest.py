"""One mesh with a waypoint for all modules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.lab.waypoint_bed import WaypointBed, waypoint_bed


@pytest.fixture(scope="package")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WaypointBed]:
    with waypoint_bed(tmp_path_factory.mktemp("waypoint")) as made:
        yield made
