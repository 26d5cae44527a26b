"""How many strangers may be shaking hands at once: in all, and from one address. Counts only."""

from __future__ import annotations

from typing import Final

from control.model.address import Address

# Under way in one worker, about 30 KiB and 0.5 ms of CPU each: what peers without a certificate can
# make us spend. A rollout of 200 nodes at once still fits.
HANDSHAKES_MAX: Final = 256
# From one address. A pod opens a tunnel or two to each of our pods; one that says nothing on many
# connections must not keep the others out.
HANDSHAKES_PER_ADDRESS_MAX: Final = 32


class Handshakes:
    """Every `enter` that said yes is followed by one `leave`."""

    __slots__ = ("_by_address", "total")

    def __init__(self) -> None:
        self.total = 0
        self._by_address: dict[Address, int] = {}

    def enter(self, address: Address) -> bool:
        """False: there are too many."""
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
