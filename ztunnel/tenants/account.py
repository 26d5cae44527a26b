"""Bytes that wait in this worker because somebody does not take them, on their tenant's account."""

from __future__ import annotations

from typing import Final

from ztunnel.tenants.bounds import FAREWELLS, QUEUED_BYTES
from ztunnel.tenants.portions import Portions
from ztunnel.tenants.tenancy import Kind, Tenancy


class Account:
    """While it is `tight` nothing more is read that may have to wait."""

    __slots__ = ("_portions", "farewells", "tenant")

    def __init__(self, portions: Portions, tenant: Tenancy, farewells: Portions) -> None:
        self._portions: Final = portions
        self.farewells: Final = farewells
        self.tenant: Final = tenant

    @property
    def tight(self) -> bool:
        return self.tenant.tight

    def add(self, count: int) -> None:
        self._portions.add(self.tenant, count)
        self.tenant.tight = not self._portions.may(self.tenant)

    def give(self, count: int) -> None:
        if count:
            self._portions.give(self.tenant, count)
        self.look()

    def look(self) -> None:
        """Others may have made room."""
        if self.tenant.tight:
            self.tenant.tight = not self._portions.may(self.tenant)


# For connections that nobody pays for.
UNCOUNTED: Final = Account(Portions(QUEUED_BYTES), Tenancy(Kind.POD, ""), Portions(FAREWELLS))
