"""The drain: as short as it can be, and bounded."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.support.clock import FakeClock
from ztunnel.waypoint.drain import DRAIN, LEAVE_S_MIN, connections, drain
from ztunnel.waypoint.envoy_admin import EnvoyAdmin, EnvoyAnswer, EnvoySilent


class Envoy(EnvoyAdmin):
    """Has `open_until_s` connections open by its clock."""

    def __init__(self, clock: FakeClock, open_until_s: float) -> None:
        self.clock, self.posted = clock, list[str]()
        self._until_s = clock.monotonic_s() + open_until_s

    async def post(self, target: str) -> EnvoyAnswer:
        self.posted.append(target)
        return EnvoyAnswer(200, b"OK\n")

    async def get(self, target: str, *, body_bytes_max: int = 0) -> EnvoyAnswer:
        number = 2 if self.clock.monotonic_s() < self._until_s else 0
        stats = [
            {"name": "listener.[__]_15008.downstream_cx_active", "value": number},
            {"name": "listener.[__]_15008.worker_0.downstream_cx_active", "value": number},
            {"name": "listener.admin.downstream_cx_active", "value": 1},
        ]
        return EnvoyAnswer(200, json.dumps({"stats": stats}).encode())


@pytest.mark.parametrize(("open_s", "takes_s"), [(0.0, LEAVE_S_MIN), (4.0, 4.0), (1000.0, 10.0)])
def test_it_takes_as_long_as_something_is_open(open_s: float, takes_s: float) -> None:
    clock = FakeClock()
    envoy = Envoy(clock, open_s)
    begun_s = clock.monotonic_s()

    async def sleep(pause_s: float) -> None:
        clock.pass_s(pause_s)

    asyncio.run(drain(envoy, 10.0, clock, sleep))
    assert envoy.posted == [DRAIN]
    assert clock.monotonic_s() - begun_s == pytest.approx(takes_s, abs=0.15)


def test_peers_are_counted_once() -> None:
    assert asyncio.run(connections(Envoy(FakeClock(), 1.0))) == 2


def test_an_envoy_that_is_gone_needs_no_drain() -> None:
    class Gone(Envoy):
        async def post(self, target: str) -> EnvoyAnswer:
            raise EnvoySilent("gone")

    asyncio.run(drain(Gone(FakeClock(), 1.0), 10.0, FakeClock()))
