"""Seats: everybody gets one, and whoever has most gives one up."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.tenants.portions import Quota
from ztunnel.tenants.seats import Seats
from ztunnel.tenants.tenancy import Kind, Tenancy

BOUND = Quota(1, total=64, floor=2)


def test_the_oldest_of_the_one_that_has_most_makes_room() -> None:
    seats: Seats[int] = Seats(BOUND)
    greedy = Tenancy(Kind.SOURCE, "greedy")
    displaced = [seats.enter(greedy, number, number) for number in range(100)]
    kept = displaced.index(0)
    assert displaced == [None] * kept + list(range(100 - kept))
    assert seats.enter(Tenancy(Kind.SOURCE, "newcomer"), 1000, 0.0) is None


@given(st.integers(1, 200), st.integers(1, 100), st.integers(0, 1 << 32))
def test_nobody_is_refused_and_no_bound_is_passed(total: int, count: int, seed: int) -> None:
    chance = random.Random(seed)
    seats: Seats[int] = Seats(Quota(1, total=total, floor=2))
    tenants = [Tenancy(Kind.SOURCE, str(number)) for number in range(count)]
    sitting: dict[int, Tenancy] = {}
    for number in range(400):
        if chance.random() < 0.8:
            tenant = chance.choice(tenants)
            most = max([seats.portions.held(each) for each in tenants])
            had = seats.portions.held(tenant)
            displaced = seats.enter(tenant, number, float(number))
            sitting[number] = tenant
            if displaced is not None:
                payer = sitting.pop(displaced)
                assert payer is tenant or seats.portions.held(payer) == most - 1
                assert had > 0 or payer is not tenant
        elif sitting:
            item, tenant = chance.choice(list(sitting.items()))
            del sitting[item]
            assert seats.leave(tenant, item)
            assert not seats.leave(tenant, item)
        assert len(seats) == len(sitting) <= total
    assert set(seats.older(1e9)) == sitting.keys()
    assert set(seats.older(100.0)) == {each for each in sitting if each < 100}
