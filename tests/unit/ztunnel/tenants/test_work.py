"""Debts for work that led to nothing, and the pace of log lines."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.tenants.work import (
    LINES_BURST,
    LINES_PER_S,
    WORK_BURST_S,
    WORK_PART,
    WORK_PART_ALL,
    WORK_WAIT_S_MAX,
    Work,
    may_log,
)

COST_S = 0.001


def busy(count: int, seconds: float, cost_s: float = COST_S) -> float:
    """CPU seconds that so many tenants cause who send as fast as they are read."""
    work, now_s, spent_s = Work(), 1000.0, 0.0
    tenants = [Tenancy(Kind.PEER, str(number)) for number in range(count)]
    end_s = now_s + seconds
    while now_s < end_s:
        ready = [each for each in tenants if each.not_before_s <= now_s]
        for tenant in ready:
            work.spend(tenant, cost_s, now_s)
            spent_s += cost_s
        now_s += max(0.001, cost_s * len(ready))
    return spent_s


@pytest.mark.parametrize("count", [1, 3, 20])
def test_those_who_only_cost_have_a_share_of_the_time(count: int) -> None:
    seconds = 60.0
    allowed = min(count * WORK_PART, WORK_PART_ALL) * seconds
    spent_s = busy(count, seconds) - count * WORK_BURST_S
    # The estimate of a wait is from the debtors that there were then.
    assert allowed * 0.5 < spent_s <= allowed * 1.3 + count * COST_S


def test_a_small_debt_delays_nothing_and_is_paid_with_time() -> None:
    work, tenant = Work(), Tenancy(Kind.PEER, "a")
    work.spend(tenant, WORK_BURST_S, 10.0)
    assert tenant.not_before_s == 0.0
    work.spend(tenant, COST_S, 10.0)
    assert tenant.not_before_s == pytest.approx(10.0 + COST_S / WORK_PART)
    work.spend(tenant, 0.0, 1000.0)
    assert tenant.debt_s == 0.0
    assert work.delayed == 1


def test_no_wait_is_longer_than_the_longest_and_more_is_forgiven() -> None:
    work, tenant = Work(), Tenancy(Kind.PEER, "a")
    work.spend(tenant, 1e6, 10.0)
    assert tenant.not_before_s == 10.0 + WORK_WAIT_S_MAX
    work.spend(tenant, COST_S, tenant.not_before_s)
    assert tenant.debt_s <= WORK_BURST_S + WORK_WAIT_S_MAX * WORK_PART + COST_S


def test_useful_work_is_taken_back_and_never_becomes_a_credit() -> None:
    work, tenant = Work(), Tenancy(Kind.SOURCE, "a")
    work.spend(tenant, COST_S, 10.0)
    work.earn(tenant, COST_S / 2)
    assert tenant.debt_s == pytest.approx(COST_S / 2)
    work.earn(tenant, 1.0)
    assert tenant.debt_s == 0.0


def test_debtors_that_have_paid_give_the_others_their_pace_back() -> None:
    work = Work()
    for number in range(100):
        work.spend(Tenancy(Kind.PEER, str(number)), 1.0, 10.0)
    assert work._rate() == pytest.approx(WORK_PART_ALL / 100)
    work.settle(1e6)
    assert work._rate() == WORK_PART


def test_while_all_together_owe_too_much_a_small_debt_waits_too() -> None:
    work, small = Work(), Tenancy(Kind.SOURCE, "small")
    work.spend(Tenancy(Kind.SOURCE, "greedy"), 1.0, 10.0)
    work.spend(small, COST_S, 10.0)
    assert small.not_before_s == pytest.approx(10.0 + COST_S / WORK_PART)


@given(st.integers(0, 1 << 32))
def test_every_line_is_written_or_counted_and_no_more_than_the_pace(seed: int) -> None:
    chance = random.Random(seed)
    tenant, now_s, written, counted = Tenancy(Kind.POD, "p"), 5.0, 0, 0
    tries = 500
    for _ in range(tries):
        now_s += chance.choice((0.0, 0.0, 0.01, 0.5))
        if may_log(tenant, now_s):
            written += 1
            counted += tenant.left_out
            tenant.left_out = 0
    assert written + counted + tenant.left_out == tries
    assert written <= LINES_BURST + (now_s - 5.0) * LINES_PER_S + 1


def test_under_pressure_who_was_of_use_keeps_its_burst_until_it_is_used_up() -> None:
    work, known, stranger = Work(), Tenancy(Kind.SOURCE, "known"), Tenancy(Kind.SOURCE, "new")
    for number in range(10):
        work.spend(Tenancy(Kind.SOURCE, str(number)), WORK_BURST_S, 10.0)
    known.trusted = True
    for each in (known, stranger):
        work.spend(each, COST_S, 10.0)
    assert known.not_before_s == 0.0
    assert stranger.not_before_s > 10.0
    work.spend(known, WORK_BURST_S, 10.0)
    assert known.not_before_s > 10.0
    assert not known.trusted
