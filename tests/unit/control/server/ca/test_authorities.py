"""The CA in force: replaced as a whole, and what it signed before stays trusted for its life."""

from __future__ import annotations

from datetime import timedelta

from control.server.ca.authority import new_authority
from control.server.metrics import Metrics
from tests.support.authorities import held
from tests.support.clock import FakeClock

CARRIED_S = timedelta(hours=24).total_seconds()


def test_roots_of_the_former_ca_are_trusted_while_its_leaves_may_live() -> None:
    clock, metrics = FakeClock(), Metrics()
    first, second = (new_authority("td", clock.now()) for _ in range(2))
    authorities = held(first, clock, metrics)
    assert authorities.replace(second)
    assert authorities.current.key is second.key
    assert authorities.current.root == second.root
    assert authorities.current.root_pem == second.root_pem + first.root_pem
    assert authorities.given.root_pem == second.root_pem
    for jump_s in (2 * CARRIED_S, -3 * CARRIED_S, CARRIED_S):
        clock.jump_s(jump_s)
        assert first.root_pem in authorities.current.root_pem, "a clock that is set"
    clock.pass_s(CARRIED_S)
    assert authorities.current.root_pem == second.root_pem


def test_the_same_ca_again_is_no_change() -> None:
    clock = FakeClock()
    first = new_authority("td", clock.now())
    authorities = held(first, clock)
    assert not authorities.replace(first)
    assert authorities.current is first


def test_changes_there_and_back_keep_each_root_once() -> None:
    clock = FakeClock()
    first, second = (new_authority("td", clock.now()) for _ in range(2))
    authorities = held(first, clock)
    for each in (second, first, second):
        assert authorities.replace(each)
    assert authorities.current.root_pem == second.root_pem + first.root_pem


def test_the_end_of_the_ca_is_shown() -> None:
    clock, metrics = FakeClock(), Metrics()
    held(new_authority("td", clock.now()), clock, metrics)
    shown = metrics.registry.get_sample_value("tulle_control_root_expiry_timestamp_seconds")
    assert shown == (clock.now() + timedelta(days=3650)).timestamp()
