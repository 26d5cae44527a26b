"""A ztunnel's worker on loopback: `python -m tests.support.engine.battery_worker FD [WEAKNESS...]`.

The product's own process but for one thing. The kernel half, which knows what an app dialled, is
not there: an app dials the address that it means on the port of the outbound listener. Each named
weakness takes one bound away, which shows that the battery notices.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

from control.model.address import Endpoint
from ztunnel.connections import sockaddr
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.roles import Asked

MEANT_PORT = 80


def _meant(sock: socket.socket) -> sockaddr.Original:
    address = sockaddr.endpoint_of(sock.getsockname()).address
    return Asked(Endpoint(address, MEANT_PORT)), Hint.NONE


def _no_frame_costs() -> None:
    from ztunnel.hbone.limits import Allowance

    Allowance.spend = lambda *_: None  # type: ignore[method-assign]
    Allowance.charge = lambda *_: None  # type: ignore[method-assign]


def _no_turns() -> None:
    """Serve each payer until it has nothing to do."""
    from ztunnel.loop import turns

    turns.SLICE_S = turns.STALL_S = 1e9  # type: ignore[misc]


def _no_portions() -> None:
    from ztunnel.tenants.portions import Portions

    Portions.may = lambda *_: True  # type: ignore[method-assign]
    Portions.take = lambda *_: True  # type: ignore[method-assign]


WEAKNESSES: dict[str, Callable[[], None]] = {
    "frames": _no_frame_costs,
    "turns": _no_turns,
    "portions": _no_portions,
}


def main(descriptor: str, *weaknesses: str) -> int:
    sockaddr.original_destination = _meant  # before the engine takes it as its default
    for each in weaknesses:
        WEAKNESSES[each]()
    from ztunnel.worker.process import main as run

    return run(["--fd", descriptor])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
