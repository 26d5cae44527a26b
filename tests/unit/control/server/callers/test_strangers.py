"""Connections without a token: which one has to make room, and when none has to."""

from __future__ import annotations

from control.server.callers.budget import SILENT, Bound, Tenant, source_tenant
from control.server.callers.strangers import GRACE_S, Strangers

HERE, THERE = source_tenant("10.0.0.1"), source_tenant("10.0.0.2")


class Bench:
    def __init__(self, each: int = 3, total: int = 4) -> None:
        self.subject: Strangers[str] = Strangers(Bound(None, each, total))

    def add(self, name: str, tenant: Tenant = HERE, *, silent_s: float | None = None) -> None:
        self.subject.add(tenant, name)
        if silent_s is not None:
            self.subject.await_word(tenant, name, silent_s)


def test_a_source_over_its_share_loses_the_one_that_was_silent_longest() -> None:
    bench = Bench()
    bench.add("busy")
    bench.add("quiet", silent_s=0.0)
    assert bench.subject.in_the_way(HERE, 9.0) is None
    bench.add("fresh", silent_s=8.9)
    assert bench.subject.in_the_way(HERE, 9.0) == "quiet"
    assert bench.subject.in_the_way(THERE, 9.0) is None
    bench.subject.hear(HERE, "quiet")
    assert bench.subject.in_the_way(HERE, 9.0) == "fresh", "all wait for us: the newest goes"
    assert bench.subject.in_the_way(HERE, 8.9 + GRACE_S) == "fresh"


def test_when_there_are_too_many_the_largest_source_makes_room() -> None:
    bench = Bench()
    bench.add("there", THERE, silent_s=0.0)
    for name in ("a", "b", "c"):
        bench.add(name)
    assert bench.subject.in_the_way(THERE, 9.0) == "c"
    bench.subject.remove(HERE, "c")
    assert bench.subject.in_the_way(THERE, 9.0) is None


def test_silence_has_a_share_of_its_own() -> None:
    bench = Bench(each=10_000, total=40_000)
    for number in range(SILENT.each):
        assert bench.subject.too_silent(HERE, 500.0) is None
        bench.add(str(number), silent_s=float(number))
    assert bench.subject.too_silent(HERE, 500.0) == "0"
    assert bench.subject.too_silent(THERE, 500.0) is None
    assert bench.subject.too_silent(HERE, GRACE_S / 2) is None, "a moment is no silence"
    bench.subject.hear(HERE, "0")
    assert bench.subject.too_silent(HERE, 500.0) is None
    bench.subject.await_word(HERE, "0", 500.0)
    assert bench.subject.too_silent(HERE, 500.0) == "1", "who spoke is last in the row"
    bench.subject.await_word(HERE, "1", 600.0)
    assert bench.subject.too_silent(HERE, 500.0) == "1", "silence is counted from its beginning"


def test_all_sources_together_have_a_bound_of_silence() -> None:
    bench = Bench(each=10_000, total=40_000)
    for number in range(SILENT.total):
        other = source_tenant(f"10.1.{number // 250}.{number % 250}")
        bench.add(str(number), HERE if number < SILENT.each else other, silent_s=0.0)
    assert bench.subject.too_silent(THERE, 9.0) == "0", "of the largest source"


def test_what_leaves_leaves_nothing() -> None:
    bench = Bench()
    bench.add("a", silent_s=0.0)
    bench.add("b")
    bench.subject.remove(HERE, "a")
    bench.subject.remove(HERE, "b")
    assert (bench.subject.shares.total, bench.subject.silent.total) == (0, 0)
