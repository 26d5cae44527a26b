"""Limits for handshakes with strangers: in all, and from one address. It only counts."""

from __future__ import annotations

from typing import Final

from control.model.address import Address

# Under way in one worker, about 30 KiB and 0.5 ms of CPU each: the cost that peers without a
# certificate can cause. A rollout of 200 nodes at once still fits.
HANDSHAKES_MAX: Final = 256
# From one address. A pod opens a tunnel or two to each of our pods; one that opens many and says
# nothing must not keep the others out.
HANDSHAKES_PER_ADDRESS_MAX: Final = 32


class Handshakes:
    """Each `enter` that returned True is followed by one `leave`."""

    __slots__ = ("_by_address", "total")

    def __init__(self) -> None:
        self.total = 0
        self._by_address: dict[Address, int] = {}

    def enter(self, address: Address) -> bool:
        """Take a place; False if there is none."""
        here = self._by_address.get(address, 0)
        if self.total >= HANDSHAKES_MAX or here >= HANDSHAKES_PER_ADDRESS_MAX:
            return False
        self._by_address[address] = here + 1
        self.total += 1
        return True

    def leave(self, address: Address) -> None:
        self.total -= 1
        left = self._by_address[address] - 1
        if left:
            self._by_address[address] = left
        else:
            del self._by_address[address]
