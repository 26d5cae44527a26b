"""Decides which addresses a node is told of, where that goes by the size of the mesh. No I/O.

The control plane says the number of its addresses when a stream begins. Another one says nothing:
then all of them come. The two bounds are apart, and a decision stays for a while, so that a mesh at
a bound, or replicas of two versions, make no node change its mind again and again.
"""

from __future__ import annotations

from typing import Final

from ztunnel.config import Addresses

# Workloads and services; a supervisor and a worker need some 2 KiB for each.
ON_DEMAND_FROM: Final = 10_000
ALL_BELOW: Final = 5_000
STAYS_S: Final = 600.0
_SIZE_DIGITS_MAX: Final = 9


class AddressScope:
    """`on_demand` is the decision in force."""

    def __init__(self, asked: Addresses) -> None:
        self.goes_by_size: Final = asked is Addresses.AUTO
        self.on_demand = asked is Addresses.ON_DEMAND
        self._says_size = False
        self._changed_s: float | None = None  # None: nothing was decided yet

    def heard(self, size: int | None, now_s: float) -> bool:
        """A stream begins, with a word about the mesh's size or without one. True if the decision
        is another now."""
        self._says_size = size is not None
        if not self.goes_by_size or not self._may_change(now_s):
            return False
        wanted = size is not None and size >= (ALL_BELOW if self.on_demand else ON_DEMAND_FROM)
        if self._changed_s is None or wanted is not self.on_demand:
            self._changed_s = now_s
        is_other = wanted is not self.on_demand
        self.on_demand = wanted
        return is_other

    def is_outgrown(self, held: int, now_s: float) -> bool:
        """True if a node that holds all of so many addresses should begin a new stream."""
        is_large = self._says_size and held >= ON_DEMAND_FROM
        return self.goes_by_size and not self.on_demand and is_large and self._may_change(now_s)

    def _may_change(self, now_s: float) -> bool:
        return self._changed_s is None or now_s >= self._changed_s + STAYS_S


def size_in(value: str | bytes | None) -> int | None:
    """The number in a header of the control plane's; None: it says nothing that makes sense."""
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    if text is None or len(text) > _SIZE_DIGITS_MAX or not (text.isascii() and text.isdigit()):
        return None
    return int(text)
