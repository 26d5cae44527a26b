"""Bytes that wait, on their tenant's account."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from ztunnel.tenants.account import Account
from ztunnel.tenants.bounds import FAREWELLS
from ztunnel.tenants.portions import Portions, Quota
from ztunnel.tenants.tenancy import Kind, Tenancy

QUOTA = Quota(4, total=1600, floor=10)


def test_all_tunnels_of_a_tenant_are_tight_together_and_no_other_is() -> None:
    portions, greedy = Portions(QUOTA), Tenancy(Kind.PEER, "greedy")
    one, another = (
        Account(portions, greedy, Portions(FAREWELLS)),
        Account(portions, greedy, Portions(FAREWELLS)),
    )
    other = Account(portions, Tenancy(Kind.PEER, "other"), Portions(FAREWELLS))
    one.add(1100)
    assert one.tight
    assert another.tight
    other.add(100)
    assert not other.tight
    one.give(600)
    assert not another.tight


def test_room_that_others_make_is_seen_at_the_next_look() -> None:
    portions = Portions(QUOTA)
    one, other = (Account(portions, Tenancy(Kind.PEER, name), Portions(FAREWELLS)) for name in "ab")
    other.add(900)
    one.add(600)
    assert one.tight
    other.give(900)
    assert one.tight
    one.look()
    assert not one.tight


@given(st.integers(0, 1 << 32))
def test_readers_that_stop_when_it_is_tight_pass_the_total_by_one_read_each(seed: int) -> None:
    chance, portions = random.Random(seed), Portions(QUOTA)
    accounts = [
        Account(portions, Tenancy(Kind.PEER, str(number)), Portions(FAREWELLS))
        for number in range(5)
    ]
    held = [0] * len(accounts)
    read_max = 20
    for _ in range(500):
        number = chance.randrange(len(accounts))
        account = accounts[number]
        account.look()
        if chance.random() < 0.7 and not account.tight:
            count = chance.randint(1, read_max)
            account.add(count)
            held[number] += count
        elif held[number]:
            count = chance.randint(1, held[number])
            account.give(count)
            held[number] -= count
        assert portions.used == sum(held) <= QUOTA.total + read_max
