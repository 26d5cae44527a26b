"""A pod's connections from before its capture, and how long they stand in a direct one's way.

Connections that are open at the capture stay as they are. The host's conntrack may know them, and
those that ended lately, by the server that a Service's address was translated to; then it gives a
direct connection from the same port to that server another port, with which nobody has vouched for
it. So a pod that ran before has no direct path until the host has forgotten.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from agent import registry
from agent.datapath import sockets
from agent.enrol.facts import Facts
from bpf import layout
from control.kit.errors import KernelError, MeshError
from control.kit.log import event
from control.model.address import is_loopback

log = logging.getLogger("enrol")

EARLIER = "earlier_connections"  # the reason for which such a pod has no direct path


@dataclass(frozen=True, slots=True)
class Connections:
    """Inodes of the sockets. `dialled`: those of them that the pod opened itself."""

    inodes: frozenset[int] = frozenset()
    dialled: frozenset[int] = frozenset()


class Earlier:
    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self._known: dict[str, Connections] = {}

    def captured(self, uid: str, netns_fd: int) -> None:
        """Note what is open in a pod that has just been captured."""
        self._known[uid] = _open_now(netns_fd)

    def forget(self, uid: str) -> None:
        self._known.pop(uid, None)

    def held_until_s(self, uid: str, remembers_s: float) -> float:
        """The time until which a pod that is captured now has no direct path; 0: it has one.
        `remembers_s`: so long the host knows a connection that has ended."""
        pod = self._facts.book.pods().get(uid)
        if (pod is not None and pod.starting) or not remembers_s:
            return 0.0
        return self._facts.clock.monotonic_s() + remembers_s

    def has_dialled(self, uid: str) -> bool:
        """True while a connection lives that the pod opened before its capture."""
        self.left(uid)
        return bool(self._known.get(uid, Connections()).dialled)

    def left(self, uid: str) -> int | None:
        """Number of live connections from before the capture; None: it was captured before us."""
        known, registration = self._known.get(uid), self._facts.known.get(uid)
        if known is None:
            return None
        if not known.inodes:
            return 0
        if registration is None:
            return None
        try:
            with registry.opened_again(registration) as netns_fd:
                live = {each.inode for each in sockets.connections(netns_fd)}
        except (MeshError, OSError):
            return None
        self._known[uid] = Connections(known.inodes & live, known.dialled & live)
        return len(known.inodes & live)


def _open_now(netns_fd: int) -> Connections:
    try:
        if not sockets.established(netns_fd):
            return Connections()
        return decided(sockets.connections(netns_fd), sockets.listening_ports(netns_fd))
    except (KernelError, OSError) as exc:
        event(log, logging.WARNING, "pod.connections_unknown", error=exc)
        return Connections()


def decided(found: list[sockets.ListedSocket], listening: frozenset[int]) -> Connections:
    """Those of the app that leave the pod or come from outside. One at a port that listens was
    accepted. A ztunnel that still serves the pod has tunnels and connections to the app there."""
    open_now = [
        each
        for each in found
        if each.state == sockets.ESTABLISHED
        and each.local.address != each.remote.address
        and not is_loopback(each.local.address)
        and not is_loopback(each.remote.address)
        and layout.HBONE_PORT not in (each.local.port, each.remote.port)
    ]
    return Connections(
        frozenset(each.inode for each in open_now),
        frozenset(each.inode for each in open_now if each.local.port not in listening),
    )
