"""Dynamic thresholds: nobody passes a bound, and a newcomer always gets some."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.tenants.portions import FREE_TIMES, KEPT_PART, Portions, Quota
from ztunnel.tenants.tenancy import Kind, Tenancy

BOUND = Quota(0, total=1024, floor=4)


def tenants(count: int, kind: Kind = Kind.PEER) -> list[Tenancy]:
    return [Tenancy(kind, str(number)) for number in range(count)]


def fill(share: Portions, tenant: Tenancy) -> int:
    while share.take(tenant):
        pass
    return share.held(tenant)


def test_one_alone_has_two_thirds_two_have_two_fifths_each() -> None:
    shared = BOUND.total * (KEPT_PART - 1) // KEPT_PART
    assert fill(Portions(BOUND), Tenancy(Kind.PEER, "a")) == pytest.approx(shared * 2 / 3, abs=1)
    share = Portions(BOUND)
    one, other = tenants(2)
    while share.take(one) | share.take(other):
        pass
    assert share.held(one) == pytest.approx(shared * FREE_TIMES / (2 * FREE_TIMES + 1), abs=2)
    assert abs(share.held(one) - share.held(other)) <= 1


def test_after_any_number_of_greedy_ones_a_newcomer_has_its_floor() -> None:
    share = Portions(BOUND)
    enough_for = BOUND.total // KEPT_PART // BOUND.floor
    for greedy in tenants(enough_for - 1):
        fill(share, greedy)
    assert fill(share, Tenancy(Kind.PEER, "last")) >= BOUND.floor


@given(st.integers(1, 4096), st.integers(1, 64), st.integers(1, 30), st.integers(0, 1 << 32))
def test_random_takers_and_givers(total: int, floor: int, count: int, seed: int) -> None:
    chance = random.Random(seed)
    share = Portions(Quota(0, total=total, floor=floor))
    all_of_them = tenants(count)
    for _ in range(300):
        tenant = chance.choice(all_of_them)
        if chance.random() < 0.7:
            for _ in range(chance.choice((1, 1, 100))):
                may = share.may(tenant)
                assert share.take(tenant) == may
        elif share.held(tenant):
            share.give(tenant, chance.randint(1, share.held(tenant)))
        held = [share.held(each) for each in all_of_them]
        assert share.used == sum(held) <= total
        assert share.holders.keys() == {each for each in all_of_them if share.held(each)}
        if count < total // KEPT_PART // max(1, min(floor, total // KEPT_PART // 16)):
            assert share.may(Tenancy(Kind.PEER, "newcomer"))


@given(
    st.integers(16, 1 << 30),
    st.lists(st.integers(1, 1 << 28), max_size=40),
    st.integers(0, 1 << 32),
)
def test_amounts_stay_within_the_room_that_was_told(
    total: int, amounts: list[int], seed: int
) -> None:
    chance = random.Random(seed)
    share = Portions(Quota(0, total=total, floor=256))
    several = tenants(4)
    for amount in amounts:
        tenant = chance.choice(several)
        share.add(tenant, min(amount, share.room(tenant)))
        assert share.used <= total
    assert share.room(Tenancy(Kind.PEER, "newcomer")) > 0


def test_addresses_together_have_their_part_only() -> None:
    share = Portions(Quota(0, total=1000, floor=2, strangers=2))
    for source in tenants(200, Kind.SOURCE):
        fill(share, source)
    assert share.strangers == share.used <= 500
    assert fill(share, Tenancy(Kind.POD, "p")) > 250
    assert share.room(Tenancy(Kind.SOURCE, "s")) == max(0, 500 - share.strangers)


def test_the_host_may_allow_less_but_never_more() -> None:
    assert Portions(BOUND, 100).total == 100
    assert Portions(BOUND, 5000).total == BOUND.total


def test_giving_back_more_than_there_is_is_a_bug() -> None:
    with pytest.raises(ValueError):
        Portions(BOUND).give(Tenancy(Kind.PEER, "a"))


def test_the_largest_is_the_one_that_holds_most() -> None:
    share = Portions(BOUND)
    assert share.largest() is None
    few, many = tenants(2)
    share.add(few, 3)
    share.add(many, 5)
    assert share.largest() is many
