"""Shares of things that can be given up: nobody is refused, the one who has most pays."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from typing import Final, Generic, TypeVar

from ztunnel.tenants.portions import Portions, Quota
from ztunnel.tenants.tenancy import Tenancy

T = TypeVar("T", bound=Hashable)


class Seats(Generic[T]):
    """Items by tenant, each with the time at which it came."""

    def __init__(self, bound: Quota, total: int = 0) -> None:
        self.portions: Final = Portions(bound, total)
        self._items: dict[Tenancy, dict[T, float]] = {}

    def __len__(self) -> int:
        return self.portions.used

    def enter(self, tenant: Tenancy, item: T, now_s: float) -> T | None:
        """Take a seat. Returns the item that loses its own, and has left already: the oldest one of
        this tenant if it is over its share, else of the tenant that has most."""
        displaced: T | None = None
        if not self.portions.may(tenant):
            payer = tenant if not self.portions.below_floor(tenant) else self.portions.largest()
            displaced = self.oldest(payer) if payer is not None else None
            if payer is not None and displaced is not None:
                self.leave(payer, displaced)
        self.portions.add(tenant, 1)
        self._items.setdefault(tenant, {})[item] = now_s
        return displaced

    def oldest(self, tenant: Tenancy) -> T | None:
        return next(iter(self._items.get(tenant, ())), None)

    def leave(self, tenant: Tenancy, item: T) -> bool:
        """Give the seat back; False if the item has none."""
        items = self._items.get(tenant)
        if items is None or items.pop(item, None) is None:
            return False
        self.portions.give(tenant)
        if not items:
            del self._items[tenant]
        return True

    def older(self, since_s: float) -> Iterator[T]:
        """Items that came before `since_s`."""
        for items in list(self._items.values()):
            for item, at_s in list(items.items()):
                if at_s >= since_s:
                    break
                yield item
