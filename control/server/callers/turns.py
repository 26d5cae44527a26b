"""Waits for a share: tasks stand in the row of their tenant until what they asked for is theirs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from control.server.callers.budget import Bound, Shares, Tenant, Ticket


class Turns:
    """One bound whose shares are waited for."""

    def __init__(self, bound: Bound) -> None:
        self.shares = Shares(bound)
        self._waiting: dict[Ticket, Callable[[], None]] = {}

    def ask(self, tenant: Tenant, amount: int, granted: Callable[[], None]) -> Ticket:
        """A ticket; `granted` is called when it is this tenant's turn, unless it is at once."""
        ticket = self.shares.ask(tenant, amount)
        if not ticket.granted:
            self._waiting[ticket] = granted
        return ticket

    def give(self, ticket: Ticket) -> None:
        """Give back what a ticket holds, or leave the row."""
        self._waiting.pop(ticket, None)
        self.shares.withdraw(ticket)
        for each in self.shares.settle():
            self._waiting.pop(each)()

    @asynccontextmanager
    async def turn(self, tenant: Tenant, amount: int = 1) -> AsyncIterator[None]:
        """Hold `amount` inside the block, after waiting for it."""
        turn = asyncio.Event()
        ticket = self.ask(tenant, amount, turn.set)
        try:
            if not ticket.granted:
                await turn.wait()
            yield
        finally:
            self.give(ticket)
