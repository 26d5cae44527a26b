from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from control.model.route import BackendEndpoint
from tests.support.waypoint.bed import WaypointBed, backend, by_name, waypoint_bed


@dataclass
class Shop:
    """A running waypoint and backends of one pod each: `shop/NAME:80`."""

    bed: WaypointBed
    pods: dict[str, BackendEndpoint]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    folder: Path = tmp_path_factory.mktemp("waypoint")
    with waypoint_bed(folder) as bed:
        pods = {name: bed.pod(name) for name in ("v1", "v2", "v3")}
        bed.apply({}, by_name(*(backend(f"shop/{name}:80", pods[name]) for name in pods)))
        bed.start()
        yield Shop(bed, pods)
