"""The size of the mesh decides what a node is told of; never to and fro."""

from __future__ import annotations

import pytest

from ztunnel.config import Addresses
from ztunnel.supervisor.scope import ALL_BELOW, ON_DEMAND_FROM, STAYS_S, AddressScope, size_in


@pytest.mark.parametrize("size", [None, 0, ALL_BELOW, 10 * ON_DEMAND_FROM])
def test_what_is_asked_for_by_name_does_not_go_by_size(size: int | None) -> None:
    for asked, on_demand in ((Addresses.ALL, False), (Addresses.ON_DEMAND, True)):
        subject = AddressScope(asked)
        assert not subject.heard(size, 0)
        assert subject.on_demand is on_demand
        assert not subject.is_outgrown(10 * ON_DEMAND_FROM, STAYS_S)


@pytest.mark.parametrize(
    ("size", "on_demand"),
    [(None, False), (0, False), (ON_DEMAND_FROM - 1, False), (ON_DEMAND_FROM, True)],
)
def test_the_first_word_decides(size: int | None, on_demand: bool) -> None:
    subject = AddressScope(Addresses.AUTO)
    assert subject.heard(size, 0) is on_demand
    assert subject.on_demand is on_demand


def test_a_mesh_between_the_bounds_changes_nothing() -> None:
    subject = AddressScope(Addresses.AUTO)
    subject.heard(ON_DEMAND_FROM, 0)
    for each in range(1, 5):
        assert not subject.heard(ALL_BELOW, each * STAYS_S)
        assert not subject.heard(ON_DEMAND_FROM - 1, each * STAYS_S)
    assert subject.heard(ALL_BELOW - 1, 5 * STAYS_S)
    assert not subject.heard(ON_DEMAND_FROM - 1, 6 * STAYS_S)
    assert not subject.on_demand


def test_a_decision_stays_for_a_while_whatever_is_said() -> None:
    subject = AddressScope(Addresses.AUTO)
    subject.heard(ON_DEMAND_FROM, 0)
    changes = sum(subject.heard(size, now_s) for now_s in range(590) for size in (None, 10**6))
    assert changes == 0
    assert subject.on_demand
    assert subject.heard(None, STAYS_S), "a control plane that says nothing sends all"


def test_a_mesh_that_grows_is_noticed_by_who_holds_all_of_it() -> None:
    subject = AddressScope(Addresses.AUTO)
    subject.heard(100, 0)
    assert not subject.is_outgrown(ON_DEMAND_FROM, STAYS_S - 1)
    assert not subject.is_outgrown(ON_DEMAND_FROM - 1, STAYS_S)
    assert subject.is_outgrown(ON_DEMAND_FROM, STAYS_S)
    assert subject.heard(ON_DEMAND_FROM, STAYS_S)
    assert not subject.is_outgrown(ON_DEMAND_FROM, 2 * STAYS_S), "it is on demand now"


def test_another_control_plane_outgrows_nothing() -> None:
    subject = AddressScope(Addresses.AUTO)
    subject.heard(None, 0)
    assert not subject.is_outgrown(10 * ON_DEMAND_FROM, 2 * STAYS_S)


@pytest.mark.parametrize(
    ("value", "size"),
    [
        (None, None),
        ("", None),
        ("12", 12),
        (b"12", 12),
        ("-1", None),
        ("1e9", None),
        ("9" * 10, None),
        ("\u0664", None),
        (b"\xff", None),
    ],
)
def test_a_size_that_makes_no_sense_is_none(value: str | bytes | None, size: int | None) -> None:
    assert size_in(value) == size
