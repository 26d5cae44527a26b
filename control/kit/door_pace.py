"""A pace for each address: so much a second, and so much at once after a quiet time. Pure."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

ADDRESSES_MAX = 4096  # those seen longest ago are forgotten: they have their whole burst again


@dataclass(slots=True)
class DoorPace:
    per_s: float
    burst: float
    _left: OrderedDict[str, tuple[float, float]] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._left)

    def admit(self, address: str, now_s: float) -> bool:
        """Take one, if there is one left."""
        left = self._now(address, now_s)
        self._keep(address, left - (left >= 1), now_s)
        return left >= 1

    def wait_s(self, address: str, now_s: float) -> float:
        """Take one in any case; the time until it was due. For those who wait for it."""
        left = self._now(address, now_s)
        self._keep(address, left - 1, now_s)
        return max(0.0, (1 - left) / self.per_s)

    def _now(self, address: str, now_s: float) -> float:
        left, then_s = self._left.get(address, (self.burst, now_s))
        return min(self.burst, left + (now_s - then_s) * self.per_s)

    def _keep(self, address: str, left: float, now_s: float) -> None:
        self._left[address] = (left, now_s)
        self._left.move_to_end(address)
        if len(self._left) > ADDRESSES_MAX:
            self._left.popitem(last=False)
