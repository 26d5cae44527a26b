"""Shares of a bound by a dynamic threshold: no fixed part for each tenant, and room for newcomers.

A tenant may take one more if it holds less than twice what is free, apart from a part that is
`kept`. One tenant alone comes to two thirds of the rest, two to two fifths each, n to 2 parts of
2 n + 1. The kept part is for tenants that hold less than `floor`: as long as there are no more than
kept / floor tenants, each gets that much, whatever the others hold.
"""

from __future__ import annotations

from typing import Final

from ztunnel.tenants.tenancy import Kind, Tenancy

# The kept part of a bound.
KEPT_PART: Final = 16
# Tenants that the kept part is enough for, at least: where little is allowed, floors are lower.
FLOORS_LEAST: Final = 16
# A tenant may hold this many times what is free.
FREE_TIMES: Final = 2


class Quota:
    """A named bound, `number` among them."""

    __slots__ = ("floor", "number", "strangers", "total")

    def __init__(self, number: int, total: int, floor: int, *, strangers: int = 1) -> None:
        """Sources together have one part in `strangers`."""
        self.number: Final = number
        self.total: Final = total
        self.floor: Final = floor
        self.strangers: Final = strangers


class Portions:
    """One bound, and the amounts that its tenants hold."""

    __slots__ = (
        "_floor",
        "_kept",
        "_number",
        "_strangers_max",
        "holders",
        "strangers",
        "total",
        "used",
    )

    def __init__(self, bound: Quota, total: int = 0) -> None:
        """`total` replaces the bound's own where the host allows less."""
        self.total: Final = min(bound.total, total) if total else bound.total
        self._number: Final = bound.number
        self._kept: Final = self.total // KEPT_PART
        self._floor: Final = max(1, min(bound.floor, self._kept // FLOORS_LEAST))
        self._strangers_max: Final = self.total // bound.strangers
        self.used = 0
        self.strangers = 0
        self.holders: dict[Tenancy, None] = {}

    @property
    def full(self) -> bool:
        return self.used >= self.total

    def held(self, tenant: Tenancy) -> int:
        return tenant.held[self._number]

    def room(self, tenant: Tenancy) -> int:
        """The amount that the tenant may take at once, now."""
        free = self.total - self.used
        held = tenant.held[self._number]
        if tenant.kind is Kind.SOURCE:
            free = min(free, self._strangers_max - self.strangers)
        shared = (FREE_TIMES * (free - self._kept) - held) // (FREE_TIMES + 1)
        return max(0, shared, min(self._floor - held, free))

    def may(self, tenant: Tenancy) -> bool:
        """True if the tenant may take one more."""
        free = self.total - self.used
        if tenant.kind is Kind.SOURCE and self._strangers_max - self.strangers < free:
            free = self._strangers_max - self.strangers
        held = tenant.held[self._number]
        return held < FREE_TIMES * (free - self._kept) or (free > 0 and held < self._floor)

    def take(self, tenant: Tenancy) -> bool:
        """Hold one more, or False."""
        if not self.may(tenant):
            return False
        self.add(tenant, 1)
        return True

    def add(self, tenant: Tenancy, amount: int) -> None:
        """Count without a question: for what is there already."""
        number = self._number
        if not tenant.held[number]:
            self.holders[tenant] = None
        tenant.held[number] += amount
        self.used += amount
        if tenant.kind is Kind.SOURCE:
            self.strangers += amount

    def give(self, tenant: Tenancy, amount: int = 1) -> None:
        number = self._number
        left = tenant.held[number] - amount
        if left < 0:
            raise ValueError(f"{tenant} gives back more than it holds of bound {number}")
        tenant.held[number] = left
        self.used -= amount
        if tenant.kind is Kind.SOURCE:
            self.strangers -= amount
        if not left:
            self.holders.pop(tenant, None)

    def below_floor(self, tenant: Tenancy) -> bool:
        return tenant.held[self._number] < self._floor

    def largest(self) -> Tenancy | None:
        """The one that holds most."""
        number, best = self._number, None
        for each in self.holders:
            if best is None or each.held[number] > best.held[number]:
                best = each
        return best
