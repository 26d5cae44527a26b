"""When the sampler looks at sockets, and at whose."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

from agent.datapath.errors import DatapathError
from agent.datapath.flows import FlowReport
from agent.direct.flows import FlowTable
from agent.direct.sampler import Sampler
from tests.support.kernel.direct_tables import FakeTables


class Nobody:
    def sampled(self, samples: Iterable[tuple[int, int, int]]) -> None: ...
    def found(self, events: Iterable[FlowReport]) -> None: ...
    def missed(self, numbers: Collection[int]) -> None: ...


def test_when_records_were_lost_every_pods_sockets_are_looked_at() -> None:
    visited: list[str] = []

    @contextmanager
    def netns_of(uid: str) -> Iterator[int]:
        visited.append(uid)
        raise DatapathError("gone")
        yield 0

    flows, tables = FlowTable(), FakeTables()
    flows.named(1, "u1")
    flows.named(2, "u2")
    flows.retired(2)
    sampler = Sampler(flows, netns_of, tables, Nobody())
    assert asyncio.run(sampler.turn(0)) == 0
    assert visited == []
    tables.lost = 3
    assert asyncio.run(sampler.turn(0)) == 3
    assert visited == ["u1", "u2"]
    assert asyncio.run(sampler.turn(3)) == 3
    assert visited == ["u1", "u2"]
    tables.close()
