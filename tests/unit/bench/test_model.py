"""Medians, spread, ratios, and when a measurement is thrown away."""

from __future__ import annotations

import pytest

from tests.bench import results
from tests.bench.model import BenchError, Figure, figure, foreign_share, ratio
from tests.unit.bench.made import CROSS, ENVOY, SAME, TULLE, measurement, result


def test_a_figure_is_the_median_and_its_range() -> None:
    assert figure([3.0, 1.0, 2.0]) == Figure(2.0, 1.0, 3.0, 3)
    assert figure([1.0, 2.0]) == Figure(1.5, 1.0, 2.0, 2)
    assert figure([]) is None


def test_spread_is_half_the_range_over_the_median() -> None:
    assert Figure(100.0, 90.0, 110.0, 3).spread == pytest.approx(0.1)
    assert Figure(0.0, 0.0, 0.0, 1).spread == 0.0


def test_a_ratio_needs_both_sides() -> None:
    two, four = Figure(2.0, 2.0, 2.0, 1), Figure(4.0, 4.0, 4.0, 1)
    assert ratio(four, two) == 2.0
    assert ratio(None, two) is None
    assert ratio(two, None) is None
    assert ratio(two, Figure(0.0, 0.0, 0.0, 1)) is None


@pytest.mark.parametrize(
    ("busy_s", "ours_s", "share"),
    [
        (4.0, 4.0, 0.0),
        (4.0, 3.6, 0.1),
        (4.0, 2.0, 0.5),
        (2.0, 2.1, 0.0),  # ticks are coarse: never below nothing
    ],
)
def test_foreign_is_what_of_all_cores_was_not_ours(
    busy_s: float, ours_s: float, share: float
) -> None:
    assert foreign_share(busy_s, ours_s, wall_s=2.0, cores=2) == pytest.approx(share)


def test_no_time_no_foreign_load() -> None:
    assert foreign_share(1.0, 0.0, wall_s=0.0, cores=2) == 0.0


def test_what_was_thrown_away_counts_for_nothing() -> None:
    made = result(
        measurement("c1", TULLE, rps=100.0),
        measurement("c1", TULLE, rps=5.0, kept=False),
    )
    assert made.figure(CROSS, "c1", TULLE, "rps") == Figure(100.0, 100.0, 100.0, 1)
    only_thrown = result(measurement("c1", TULLE, rps=5.0, kept=False))
    assert only_thrown.figure(CROSS, "c1", TULLE, "rps") is None


def test_rows_keep_the_order_of_cases_and_group_the_metrics() -> None:
    made = result(
        measurement("c64", ENVOY, rps=1.0, p50_us=1.0),
        measurement("c64", TULLE, rps=1.0, worker_rss_out_mib=1.0, cpu_out_us=1.0),
        measurement("c1", TULLE, topology=SAME, rps=1.0),
    )
    assert made.rows() == [
        (CROSS, "c64", "rps"),
        (CROSS, "c64", "p50_us"),
        (CROSS, "c64", "cpu_out_us"),
        (CROSS, "c64", "worker_rss_out_mib"),
        (SAME, "c1", "rps"),
    ]


def test_a_result_survives_the_disk() -> None:
    made = result(measurement("c1", TULLE, rps=100.0), measurement("c64", ENVOY, p99_us=5.0))
    assert results.decode(results.encode(made), "here") == made


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 0}', '{"version": 1}'])
def test_other_json_is_refused_by_name(text: str) -> None:
    with pytest.raises(BenchError, match=r"here\.json"):
        results.decode(text, "here.json")


def test_pieces_of_one_machine_make_one_result() -> None:
    one = result(measurement("c1", TULLE, rps=100.0))
    two = result(measurement("c64", TULLE, rps=200.0))
    both = results.merge([one, two])
    assert both.figure(CROSS, "c1", TULLE, "rps") is not None
    assert both.figure(CROSS, "c64", TULLE, "rps") is not None


def test_names_of_results_sort_by_time() -> None:
    early = results.path_of("2026-01-02T03:04:05+00:00")
    late = results.path_of("2026-01-02T03:04:06+00:00")
    assert early.name == "2026-01-02T030405.json"
    assert early < late
