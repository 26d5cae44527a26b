"""A source's word is taken over in steps, and half of it is never saved."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from control.kit.slices import done
from control.server.sources.inventory import Inventory
from control.server.sources.snapshot import Snapshot
from tests.support.counted_steps import Most, measured
from tests.unit.control.server.sources.test_lasting import (
    FEW,
    MANY,
    LastingBench,
    holding,
    put,
    with_bench,
)


def test_no_step_of_what_a_source_says_grows_with_the_mesh(tmp_path: Path) -> None:
    """As when the source comes back after a start without it: everything is compared."""
    count = 1000
    put(tmp_path / "state", holding(count))
    found: list[Most] = []

    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.trouble = "it is away"
        await anext(snapshots)
        for said in (holding(count), Snapshot(Inventory(), {}, is_whole=True)):
            bench.source._owed, bench.source._owes_all = dict(said.changed), True
            bench.source._gone_share = 1.0
            found.append(measured(bench.source._pay()))

    with_bench(tmp_path / "state", act)
    assert all(each.lines[0] <= count for each in found), found
    assert all(each.freed[0] <= count for each in found), found


def test_half_of_what_a_source_said_is_not_saved(tmp_path: Path) -> None:
    async def act(bench: LastingBench, snapshots: AsyncIterator[Snapshot]) -> None:
        bench.inner.said.put_nowait(FEW)
        await anext(snapshots)
        await bench.kept(lambda found: found == FEW.objects)
        bench.source._owed = dict(MANY.changed)
        steps = bench.source._pay()
        while not bench.source._unsaved:
            next(steps)
        assert not bench.source._has_unsaved()
        done(steps)
        assert bench.source._has_unsaved()

    with_bench(tmp_path / "state", act)
