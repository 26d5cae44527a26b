"""Clocks of payers: who is behind, what a stranger's time counts as, and what is forgotten."""

from __future__ import annotations

import pytest

from ztunnel.loop.clocks import CLOCKS_MAX, CREDIT_S, DEBT_S_MAX, Clocks


class Address(str):
    """A stranger."""

    stranger = True


def test_whoever_had_less_is_behind() -> None:
    clocks = Clocks()
    clocks.run("much", 0.002, 1.0)
    clocks.run("little", 0.001, 1.0)
    assert clocks.is_behind("little", "much")
    assert not clocks.is_behind("much", "little")
    assert not clocks.is_behind("little", "little")


def test_who_was_away_comes_back_where_the_others_are_with_a_small_credit() -> None:
    clocks = Clocks()
    clocks.begin_turn_at(1.0)
    assert clocks.at("new") == 1.0
    clocks.begin_turn_at(2.0)
    clocks.run("old", 0.0, 1.0)
    clocks.begin_turn_at(3.0)
    assert clocks.at("old") == pytest.approx(3.0 - CREDIT_S)


def test_a_debt_has_an_end() -> None:
    clocks = Clocks()
    clocks.run("busy", 100 * DEBT_S_MAX, 1.0)
    assert clocks.at("busy") == pytest.approx(DEBT_S_MAX)


def test_strangers_are_one_beside_the_others_and_several_among_themselves() -> None:
    clocks = Clocks()
    one, other = Address("from 1"), Address("from 2")
    clocks.run(one, 0.004, 1.0)
    clocks.run("known", 0.003, 1.0)
    assert clocks.is_behind(other, one)
    assert clocks.is_behind("known", other)  # all addresses had more than it
    assert clocks.at(other) < clocks.at("known")


def test_what_a_stranger_did_counts_as_its_own_once_it_is_known() -> None:
    clocks = Clocks()
    source = Address("from 1")
    clocks.run(source, 0.004, 1.0)
    clocks.take_over("peer", 0.004)
    assert clocks.at("peer") == pytest.approx(0.004)
    assert clocks.at(source) == pytest.approx(0.004)  # its next handshake waits as before
    assert clocks.among_all(Address("from 2")) == pytest.approx(0.0)  # others do not pay for it


def test_clocks_are_bounded() -> None:
    clocks = Clocks()
    for number in range(10 * CLOCKS_MAX):
        clocks.run(number, 0.001, 1.0)
        clocks.run_on(number, 0.001)  # also of the one at which all were forgotten
        assert len(clocks) <= CLOCKS_MAX
