"""Publications of waypoints: who is told of which, and what a mesh without one pays."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from control.model.route import WaypointKey
from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.xds import unencoded
from control.server.xds.cache import Change
from control.server.xds.publish import Publisher
from control.wire.types import CLUSTER_TYPE, LISTENER_TYPE
from tests.support.clock import FakeClock
from tests.support.gateways import gateway, namespace, route, service
from tests.support.manifests import load
from tests.unit.control.server.xds.envoy_model import PlainEncoder

WAY, OTHER = WaypointKey("shop", "way"), WaypointKey("shop", "other")
MESH = (
    namespace()
    + gateway()
    + gateway("other")
    + service("web", labels="istio.io/use-waypoint: way")
    + service("api", labels="istio.io/use-waypoint: other")
)


class Bench:
    """A publisher with a listener for the mesh and one for each waypoint."""

    def __init__(self, folder: Path) -> None:
        self.metrics = Metrics()
        captured = CapturedSet(folder / "captured", is_new=True)
        self.publisher = Publisher(Settings(), captured, self.metrics, FakeClock(), PlainEncoder)
        self.publish(MESH)
        self.heard: list[tuple[WaypointKey | None, Change]] = []
        for key in (None, WAY, OTHER):
            self.listen(key)

    def listen(self, key: WaypointKey | None) -> None:
        self.publisher.listen(lambda change: self.heard.append((key, change)), key)

    def publish(self, text: str) -> list[WaypointKey | None]:
        """Those who heard of it."""
        self.heard = []
        self.publisher.offer(load(text))
        self.publisher.publish()
        return [key for key, _ in self.heard]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_each_hears_of_its_own(bench: Bench) -> None:
    generation = bench.publisher.generation
    spec = "rules: [{backendRefs: [{name: api, port: 80}]}]"
    assert bench.publish(MESH + route(spec)) == [WAY], "a route is nothing to nodes"
    assert bench.publisher.generation == generation + 1
    assert bench.publish(MESH + route(spec)) == []
    renamed = MESH.replace("name: web", "name: www")
    assert bench.publish(renamed) == [None, WAY]
    assert bench.publish(renamed + namespace(name="else")) == [None]


def test_a_waypoint_is_one_while_there_is_its_gateway(bench: Bench) -> None:
    assert bench.publisher.is_waypoint(WAY)
    assert not bench.publisher.is_waypoint(WaypointKey("shop", "web"))
    value = bench.metrics.registry.get_sample_value
    assert value("tulle_control_resources", {"type": "Cluster"}) == 2
    assert WAY in bench.publish(MESH.replace(gateway(), ""))
    assert not bench.publisher.is_waypoint(WAY)
    assert value("tulle_control_resources", {"type": "Cluster"}) == 1
    assert bench.publisher.racks.rack(OTHER).shelves[CLUSTER_TYPE].entries


def test_a_listener_that_left_is_not_told(bench: Bench) -> None:
    stop = bench.publisher.listen(lambda _: bench.heard.append((None, {})), OTHER)
    stop()
    stop()
    assert bench.publish(MESH.replace("name: api", "name: apis")) == [None, OTHER]
    assert len(bench.publisher._listeners) == 3


def test_a_whole_snapshot_takes_routes_along(bench: Bench) -> None:
    spec = "rules: [{backendRefs: [{name: api, port: 80}]}]"
    bench.publish(MESH + route(spec))
    assert bench.publish(MESH) == [WAY]


def test_a_mesh_without_waypoints_loads_nothing_of_envoys(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from control.kit.clock import SystemClock
from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.xds.publish import Publisher
from tests.support.manifests import load, pod
captured = CapturedSet(Path(sys.argv[1]), is_new=True)
publisher = Publisher(Settings(), captured, Metrics(), SystemClock())
publisher.offer(load(pod()))
publisher.publish()
print([each for each in sys.modules if each.startswith("control.server.envoy")])
"""
    command = [sys.executable, "-c", code, str(tmp_path / "captured")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_waypoints_first_resources_are_its_listeners(bench: Bench) -> None:
    bench.listen(WaypointKey("shop", "new"))
    bench.publish(MESH + gateway("new"))
    ((key, change),) = [each for each in bench.heard if each[0] is not None]
    assert key == WaypointKey("shop", "new")
    assert change.keys() == {LISTENER_TYPE}


def test_nodes_do_not_wait_for_the_waypoints_of_a_large_gateway(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unencoded, "PARTS_MAX", 4)
    bench = Bench(tmp_path)
    bench.publisher.publish()
    many = "".join(service(f"s{each}", labels="istio.io/use-waypoint: way") for each in range(9))
    assert bench.publish(MESH + many) == [None, WAY], "the mesh whole, the waypoint in part"
    shelf = bench.publisher.racks.rack(WAY).shelves[CLUSTER_TYPE]
    assert len(shelf.entries) == 5
    bench.heard = []

    def look(_: Change) -> None:
        if not bench.publisher.racks.has_more:
            over.set()

    over = asyncio.Event()
    bench.publisher.listen(look, WAY)

    async def rest() -> None:
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(bench.publisher.run())
            await over.wait()
            running.cancel()

    asyncio.run(rest())
    assert {key for key, _ in bench.heard} == {WAY}, "nobody had to offer anything"
    assert len(shelf.entries) == 10
