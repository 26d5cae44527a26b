"""Figures of a growing mesh: exponents, goals, and the end of a response that nobody parses."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from control.server.sources.directory import DirectorySource
from control.wire import discovery_pb2 as pb
from control.wire.types import ADDRESS_TYPE, AUTHORIZATION_TYPE
from tests.bench.scale.__main__ import take
from tests.bench.scale.compile import KINDS, WAYS, figures, from_crowd
from tests.bench.scale.light import end_of
from tests.bench.scale.mesh import LargeMesh
from tests.bench.scale.outcome import NAMES, ScaleFigure, exponent, goal_of, missed, table
from tests.bench.scale.parts import Unmeasured
from tests.bench.scale.picture import PANELS, svg
from tests.support.clock import FakeClock

FIGURES = [ScaleFigure("change_cpu_ms", pods, 0, pods / 1000) for pods in (1_000, 10_000, 50_000)]


def test_a_cost_that_grows_with_the_mesh_has_the_exponent_one() -> None:
    assert exponent(FIGURES, "change_cpu_ms") == pytest.approx(1.0)
    assert exponent([ScaleFigure("ready_s", n, 0, 3.0) for n in (1, 10)], "ready_s") == 0
    assert exponent(FIGURES[:1], "change_cpu_ms") is None
    assert exponent([], "change_cpu_ms") is None


def test_a_goal_is_for_meshes_of_its_size() -> None:
    assert goal_of(ScaleFigure("ready_s", 10_000, 0, 9.0)) is None
    assert goal_of(ScaleFigure("ready_s", 50_000, 0, 9.0)) is not None
    assert goal_of(ScaleFigure("last_ms", 10_000, 100, 9.0)) is None
    *_, words = missed(FIGURES)
    assert words == "CPU of one pod's change: 50 ms at 50,000 pods, 0 nodes; goal 5"


def test_table_and_picture_have_every_figure() -> None:
    figures = [
        *FIGURES,
        ScaleFigure("broken", 1_000, 7, 0.0),
        ScaleFigure("ready_s", 1_000, 0, 2.5),
    ]
    text = table(figures)
    assert "1,000 pods × 7" in text
    assert "2.50" in text
    assert set(PANELS) <= NAMES.keys()
    assert svg(figures).count("<polyline") == 2


def test_manifests_of_a_large_mesh_are_read_without_a_problem(tmp_path: Path) -> None:
    LargeMesh(250, 7).write(tmp_path / "manifests")
    found = DirectorySource(tmp_path / "manifests", FakeClock()).read()
    assert found.problems == ()
    counts = found.counts()
    assert (counts["Pod"], counts["Service"], counts["AuthorizationPolicy"]) == (250, 25, 13)


def test_the_end_of_a_response_is_found_behind_its_resources() -> None:
    response = pb.DeltaDiscoveryResponse(type_url=AUTHORIZATION_TYPE, nonce="n-17")
    response.resources.add(name="a").resource.type_url = AUTHORIZATION_TYPE
    response.removed_resources.append("gone")
    data = response.SerializeToString()
    assert end_of(data, (ADDRESS_TYPE, AUTHORIZATION_TYPE)) == (AUTHORIZATION_TYPE, "n-17")
    with pytest.raises(ValueError, match="no response"):
        end_of(data, (ADDRESS_TYPE,))


def test_every_kind_of_change_is_measured() -> None:
    found = {each.name: each.value for each in figures(100)}
    assert len(found) == 1 + len(KINDS) * len(WAYS)
    assert from_crowd(50, 5) > 0


def test_a_part_that_fails_leaves_the_others_their_figures(
    capsys: pytest.CaptureFixture[str],
) -> None:
    async def half() -> AsyncIterator[ScaleFigure]:
        yield ScaleFigure("ready_s", 50_000, 0, 9.0)
        raise ExceptionGroup("of a daemon", [TimeoutError("not started")])

    async def whole() -> AsyncIterator[ScaleFigure]:
        yield ScaleFigure("rss_mib", 50_000, 0, 300.0)

    async def without() -> AsyncIterator[ScaleFigure]:
        for figure in FIGURES[:0]:
            yield figure
        raise Unmeasured("said nothing")

    found: list[ScaleFigure] = []
    for name, part in (("half", half()), ("without", without()), ("whole", whole())):
        asyncio.run(take(found, name, part))
    assert [each.name for each in found] == ["ready_s", "rss_mib"]
    said = capsys.readouterr().out
    assert "half failed: ExceptionGroup TimeoutError not started" in said
    assert "without failed: Unmeasured said nothing" in said
