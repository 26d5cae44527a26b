"""Shares and turns: nothing that one tenant does changes what another may have."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.server.callers.budget import (
    HELD,
    Bound,
    Pace,
    Paces,
    Rounds,
    Shares,
    Tenant,
    Ticket,
    node_tenant,
    source_tenant,
)

HOG, HONEST, THIRD = node_tenant("hog"), node_tenant("honest"), node_tenant("third")
AMOUNTS = st.integers(1, 4)
# A tenant's moves: take an amount, or give the last one back.
MOVES = st.lists(st.tuples(st.sampled_from(["take", "give"]), AMOUNTS), max_size=30)


class Player:
    """A tenant that takes and gives back, and remembers what it was told."""

    def __init__(self, shares: Shares, tenant: Tenant) -> None:
        self.shares, self.tenant = shares, tenant
        self.held: list[int] = []
        self.answers: list[bool] = []

    def move(self, kind: str, amount: int) -> None:
        if kind == "take":
            taken = self.shares.take(self.tenant, amount)
            self.answers.append(taken)
            if taken:
                self.held.append(amount)
        elif self.held:
            self.shares.give(self.tenant, self.held.pop())


@given(MOVES, MOVES, st.randoms(use_true_random=False))
def test_what_one_tenant_takes_changes_no_answer_to_another(
    hog_moves: list[tuple[str, int]], moves: list[tuple[str, int]], random: object
) -> None:
    bound = Bound(None, each=6, total=12)
    alone = Player(Shares(bound), HONEST)
    shares = Shares(bound)
    hog, beside = Player(shares, HOG), Player(shares, HONEST)
    for number, move in enumerate(moves):
        for hog_move in hog_moves[number * 2 : number * 2 + 2]:
            hog.move(*hog_move)
        alone.move(*move)
        beside.move(*move)
    assert beside.answers == alone.answers
    assert shares.total == sum(hog.held) + sum(beside.held) <= bound.total
    assert sum(hog.held) <= bound.each


@given(st.lists(AMOUNTS, max_size=40), AMOUNTS)
def test_a_tenant_waits_for_one_turn_of_each_other_at_most(asked: list[int], mine: int) -> None:
    shares = Shares(Bound(None, each=4, total=4))
    hogs = [shares.ask((HOG, THIRD)[number % 2], amount) for number, amount in enumerate(asked)]
    ticket = shares.ask(HONEST, mine)
    turns = 0
    running = [each for each in hogs if each.granted]
    while not ticket.granted:
        granted: list[Ticket] = []
        while not granted:
            shares.withdraw(running.pop(0))
            granted = shares.settle()
        running += [each for each in granted if each is not ticket]
        before = granted.index(ticket) if ticket in granted else len(granted)
        turns += before
    assert turns <= 2


def test_a_tenant_at_its_own_bound_stops_nobody() -> None:
    shares = Shares(Bound(None, each=2, total=4))
    assert [shares.ask(HOG).granted for _ in range(5)] == [True, True, False, False, False]
    assert shares.ask(HONEST, 2).granted
    assert not shares.ask(THIRD).granted
    assert shares.take(HOG) is False


def test_a_large_amount_is_not_passed_by_small_ones_for_ever() -> None:
    shares = Shares(Bound(None, each=4, total=4))
    first = [shares.ask(HOG, 1) for _ in range(4)]
    large, small = shares.ask(HONEST, 4), shares.ask(THIRD, 1)
    for each in first:
        assert not large.granted
        shares.withdraw(each)
        shares.settle()
    assert large.granted
    assert not small.granted


def test_a_ticket_that_waits_no_longer_lets_those_behind_it_in() -> None:
    shares = Shares(Bound(None, each=4, total=4))
    held = shares.ask(HOG, 3)
    large, small = shares.ask(HONEST, 4), shares.ask(THIRD, 1)
    shares.withdraw(large)
    assert shares.settle() == [small]
    shares.withdraw(held)
    shares.withdraw(small)
    assert shares.total == 0


def test_more_than_a_share_counts_as_the_whole_share() -> None:
    shares = Shares(Bound(None, each=4, total=8))
    assert shares.ask(HOG, 100).amount == 4
    with pytest.raises(ValueError):
        shares.give(HOG, 5)


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 50), st.integers(0, 3)), max_size=40))
def test_a_pace_is_each_tenants_own_and_holds_in_the_long_run(
    moves: list[tuple[bool, int, int]],
) -> None:
    pace = Pace(None, per_s=10, burst=20)
    alone, beside = Paces(pace), Paces(pace)
    now_s = spent = 0.0
    for honest, amount, later_s in moves:
        now_s += later_s
        if not honest:
            beside.spend(HOG, amount, now_s)
        elif beside.wait_s(HONEST, now_s) == 0:  # it goes on when it may
            spent += amount
            assert beside.spend(HONEST, amount, now_s) == alone.spend(HONEST, amount, now_s)
    assert spent <= pace.burst + 50 + now_s * pace.per_s


def test_a_pace_waits_until_the_debt_is_paid() -> None:
    paces = Paces(Pace(None, per_s=10, burst=20))
    assert paces.spend(HOG, 20, 0.0) == 0.0
    assert paces.spend(HOG, 10, 0.0) == 1.0
    assert paces.wait_s(HOG, 0.5) == 0.5
    assert paces.wait_s(HOG, 1.0) == 0.0
    assert not paces.allow(HOG, 1.0)
    assert paces.allow(HOG, 1.1)
    assert paces.allow(HONEST, 0.0)


@given(st.lists(st.sampled_from([HOG, HONEST, THIRD]), max_size=40))
def test_rounds_take_from_each_tenant_in_turn(pushed: list[Tenant]) -> None:
    rounds: Rounds[int] = Rounds()
    for number, tenant in enumerate(pushed):
        rounds.push(tenant, number)
    owners = [pushed[rounds.pop()] for _ in pushed]
    assert not rounds
    for tenant in {*pushed}:
        mine = [at for at, owner in enumerate(owners) if owner == tenant]
        gaps = [later - earlier for earlier, later in pairwise(mine)]
        assert all(gap <= 3 for gap in gaps)


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::9", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("rubbish", "unknown"),
    ],
)
def test_a_source_is_an_address_or_a_prefix(host: str, name: str) -> None:
    assert source_tenant(host) == Tenant("source", name)


def test_no_single_tenant_may_have_more_than_a_quarter_of_anything_held() -> None:
    assert [each for each in HELD if each.each * 4 > each.total] == []
