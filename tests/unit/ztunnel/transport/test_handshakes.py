"""One address cannot take every place, and places come back."""

from __future__ import annotations

import pytest

from control.model.address import Address
from ztunnel.transport.handshakes import HANDSHAKES_MAX, HANDSHAKES_PER_ADDRESS_MAX, Handshakes


def address(number: int) -> Address:
    return Address(number.to_bytes(4))


def test_one_address_leaves_room_for_others() -> None:
    handshakes = Handshakes()
    entered = [handshakes.enter(address(1)) for _ in range(HANDSHAKES_MAX)]
    assert entered.count(True) == HANDSHAKES_PER_ADDRESS_MAX
    assert handshakes.enter(address(2))
    handshakes.leave(address(1))
    assert handshakes.enter(address(1))


def test_all_together_are_bounded_and_nothing_is_remembered_of_who_left() -> None:
    handshakes = Handshakes()
    for number in range(HANDSHAKES_MAX):
        assert handshakes.enter(address(number))
    assert not handshakes.enter(address(HANDSHAKES_MAX))
    for number in range(HANDSHAKES_MAX):
        handshakes.leave(address(number))
    assert handshakes.total == 0
    with pytest.raises(KeyError):
        handshakes.leave(address(0))
