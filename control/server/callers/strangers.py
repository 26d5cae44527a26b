"""Connections that have shown no token yet, by source, and which of them has to make room.

Some wait for us: their bytes have come, and have no turn yet. The others are silent: they owe us
the next word, and after a while they are displaced for that. A burst of clients is therefore worked
off in order, however long that takes, while silent ones give way to whoever has something to say.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from control.server.callers.budget import CALLING, SILENT, Bound, Shares, Tenant

GRACE_S = 2.0  # silence that is no reproach: a slow link, a busy client, or we have not read yet

T = TypeVar("T", bound=Hashable)


@dataclass(slots=True)
class _Row(Generic[T]):
    """Those of one source, oldest first."""

    all: dict[T, None] = field(default_factory=dict)
    silent: dict[T, float] = field(default_factory=dict)  # since when
    calling: dict[T, None] = field(default_factory=dict)


class Strangers(Generic[T]):
    def __init__(self, bound: Bound, calling: Bound = CALLING) -> None:
        self.shares = Shares(bound)
        self.silent = Shares(SILENT)
        self.calling = Shares(calling)
        self._rows: dict[Tenant, _Row[T]] = {}

    def in_the_way(self, tenant: Tenant, now_s: float) -> T | None:
        """The one that has to go before this source can have one more."""
        if self.shares.held(tenant) >= self.shares.bound.each:
            return self._least(tenant, now_s)
        if self.shares.total < self.shares.bound.total:
            return None
        return self._least(_largest(self.shares), now_s)

    def _least(self, tenant: Tenant, now_s: float) -> T:
        """The longest silent one of a source, or the newest: nothing was done for it yet."""
        longest = self._longest_silent(tenant, now_s)
        return next(reversed(self._rows[tenant].all)) if longest is None else longest

    def _longest_silent(self, tenant: Tenant, now_s: float) -> T | None:
        for each, since_s in self._rows[tenant].silent.items():
            return each if now_s - since_s >= GRACE_S else None
        return None

    def add(self, tenant: Tenant, stranger: T) -> None:
        self.shares.take(tenant)
        self._rows.setdefault(tenant, _Row()).all[stranger] = None

    def remove(self, tenant: Tenant, stranger: T) -> None:
        self.hear(tenant, stranger)
        row = self._rows[tenant]
        if stranger in row.calling:
            del row.calling[stranger]
            self.calling.give(tenant)
        del row.all[stranger]
        if not row.all:
            del self._rows[tenant]
        self.shares.give(tenant)

    def hear(self, tenant: Tenant, stranger: T) -> None:
        """It said something, or is gone."""
        if self._rows[tenant].silent.pop(stranger, None) is not None:
            self.silent.give(tenant)

    def too_silent(self, tenant: Tenant, now_s: float) -> T | None:
        """One that has to go while too many are silent."""
        if self.silent.held(tenant) < self.silent.bound.each:
            if self.silent.total < self.silent.bound.total:
                return None
            tenant = _largest(self.silent)
        return self._longest_silent(tenant, now_s)

    def too_many_call(self, tenant: Tenant) -> T | None:
        """The one that has to go before another one of this source is passed on to gRPC."""
        if self.calling.held(tenant) < self.calling.bound.each:
            if self.calling.total < self.calling.bound.total:
                return None
            tenant = _largest(self.calling)
        return next(iter(self._rows[tenant].calling))

    def pass_on(self, tenant: Tenant, stranger: T) -> None:
        self._rows[tenant].calling[stranger] = None
        self.calling.add(tenant)

    def await_word(self, tenant: Tenant, stranger: T, now_s: float) -> None:
        """It owes us the next word from now on."""
        row = self._rows[tenant]
        if stranger not in row.silent:
            row.silent[stranger] = now_s
            self.silent.add(tenant)


def _largest(shares: Shares) -> Tenant:
    return max(shares.tenants(), key=lambda each: each[1])[0]
