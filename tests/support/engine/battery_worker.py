"""A ztunnel's worker on loopback: `python -m tests.support.engine.battery_worker FD VICTIM ...`.

The product's own process but for one thing. The kernel half, which knows what an app dialled, is
not there: an app dials the address that it means on the port of the outbound listener, and who
dials a plaintext listener by another address than its pod's own means the app there. Each further
argument is a weakness, and takes one bound away, which shows that the battery notices.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from control.model.address import Endpoint, parse_address
from ztunnel.connections import sockaddr
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.roles import Accepted, Asked

if TYPE_CHECKING:
    from ztunnel.connections.engine import Engine
    from ztunnel.connections.pod import Pod

MEANT_PORT = 8080


def _meant(sock: socket.socket) -> sockaddr.Original:
    address = sockaddr.endpoint_of(sock.getsockname()).address
    return Asked(Endpoint(address, MEANT_PORT)), Hint.NONE


def _plaintext_for_apps(victim: str) -> None:
    from ztunnel.connections import listeners

    take, own = listeners.accept_plaintext, parse_address(victim)

    def accept_plaintext(
        engine: Engine, pod: Pod, sock: socket.socket, client: Endpoint, accepted: Accepted
    ) -> None:
        meant = accepted if accepted.address == own else Accepted(Endpoint(own, MEANT_PORT))
        take(engine, pod, sock, client, meant)

    listeners.accept_plaintext = accept_plaintext


def _no_frame_costs() -> None:
    from ztunnel.hbone.limits import Allowance

    Allowance.spend = lambda *_: None  # type: ignore[method-assign]
    Allowance.charge = lambda *_: None  # type: ignore[method-assign]


def _no_turns() -> None:
    """Serve each payer until it has nothing to do."""
    from ztunnel.loop import turns

    turns.SLICE_S = turns.ENDLESS_SLICE_S = turns.STALL_S = 1e9  # type: ignore[misc]
    from ztunnel.transport import pace

    pace.READ_ALONE_S = 1e9  # type: ignore[misc]


def _no_portions() -> None:
    from ztunnel.tenants.portions import Portions

    Portions.may = lambda *_: True  # type: ignore[method-assign]
    Portions.take = lambda *_: True  # type: ignore[method-assign]
    from ztunnel.tenants.work import Work

    Work.spend = lambda *_: None  # type: ignore[method-assign]  # who owes would not be accepted


WEAKNESSES: dict[str, Callable[[], None]] = {
    "frames": _no_frame_costs,
    "turns": _no_turns,
    "portions": _no_portions,
}


def main(descriptor: str, victim: str, *weaknesses: str) -> int:
    sockaddr.original_destination = _meant  # before the engine takes it as its default
    _plaintext_for_apps(victim)
    for each in weaknesses:
        WEAKNESSES[each]()
    from ztunnel.worker.process import main as run

    return run(["--fd", descriptor])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
