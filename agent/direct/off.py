"""Stands in for the direct path where it is switched off, or the kernel has none; does nothing."""

from __future__ import annotations

import socket

from control.model.address import Address


class Off:
    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def run(self, listener: socket.socket) -> None:
        """A ztunnel that dials finds nobody."""
        listener.close()

    def newest(self, pid: int | None) -> None:
        """Nobody's verdicts are taken."""

    def captured(self, uid: str, workload: int, addresses: tuple[Address, ...]) -> None:
        """Nor about anybody."""

    def released(self, uid: str, workload: int = 0) -> None:
        """As above."""

    def status(self) -> dict[str, object]:
        return {"on": False, "reason": self._reason}
