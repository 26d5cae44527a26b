"""Figures by tenant: those that use most, the rest together, and nothing lost."""

from __future__ import annotations

from ztunnel.tenants.book import Tenants
from ztunnel.tenants.figures import OTHER, SERIES_MAX, add, figures, gauges
from ztunnel.tenants.tenancy import Kind, Tenancy


def many(count: int) -> list[Tenancy]:
    made = [Tenancy(Kind.PEER, str(number)) for number in range(count)]
    tenants = Tenants(20_000)
    for number, each in enumerate(made, 1):
        tenants.connections.add(each, number)
        each.refused = number
    return made


def test_those_that_use_most_have_a_row_and_the_others_one_together() -> None:
    rows = figures(many(20), 3)
    assert [row["name"] for row in rows] == ["19", "18", "17", OTHER]
    assert sum(row["connections"] for row in rows) == sum(range(1, 21))
    assert sum(row["refused"] for row in rows) == sum(range(1, 21))


def test_cpu_counts_before_all_else_and_who_never_did_anything_has_no_row() -> None:
    tenants = many(3)
    tenants[0].cpu_s = 1.5
    rows = figures([*tenants, Tenancy(Kind.POD, "quiet")])
    assert [row["name"] for row in rows] == ["0", "2", "1"]
    assert rows[0]["cpuMs"] == 1500


def test_series_are_bounded_however_many_tenants_there_are() -> None:
    found = gauges(many(1000))
    assert {labels["tenant"] for _, labels, _ in found if labels["kind"] != OTHER} == {
        str(number) for number in range(999, 999 - SERIES_MAX, -1)
    }
    assert len(found) == len({name for name, *_ in found}) * (SERIES_MAX + 1)


def test_rows_of_several_workers_add_up() -> None:
    total: dict[str, object] = {"kind": "pod", "name": "a"}
    add(total, {"kind": "pod", "name": "a", "refused": 2})
    add(total, {"kind": "pod", "name": "a", "refused": 3})
    assert total == {"kind": "pod", "name": "a", "refused": 5}


def test_a_thousand_that_had_a_moment_each_had_a_second_together() -> None:
    made = [Tenancy(Kind.SOURCE, str(number)) for number in range(5000)]
    for each in made:
        each.cpu_s = 0.0002
    assert sum(row["cpuMs"] for row in figures(made, 3)) == round(1000 * 4997 * 0.0002)
