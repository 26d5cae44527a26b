"""Stand-in for the direct path where the kernel lacks it; does nothing."""

from __future__ import annotations

import socket

from control.model.address import Address


class Off:
    def __init__(self, reason: str) -> None:
        self._reason = reason

    async def run(self, listener: socket.socket) -> None:
        """Close the listener: a ztunnel that dials it is refused."""
        listener.close()

    def newest(self, pid: int | None) -> None:
        """No ztunnel has a say."""

    def captured(self, uid: str, workload: int, addresses: tuple[Address, ...]) -> None:
        """No pod goes direct."""

    def released(self, uid: str, workload: int = 0) -> None:
        """As above."""

    def forgotten(self, uid: str) -> None:
        """As above."""

    async def known(self, uid: str) -> bool:
        """No ztunnel tells."""
        return True

    def status(self) -> dict[str, object]:
        return {"on": False, "reason": self._reason}
