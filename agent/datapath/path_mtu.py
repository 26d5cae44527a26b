"""A captured pod's TCP notices a path that drops large packets and tells nobody.

The tunnels of a pod are sockets of its namespace, and many connections share one. Where a router's
"too big" gets lost, a single large message would hold up all of them until the tunnel is cut, and
the next tunnel as well: in a handshake the certificates are larger than the path. With
`tcp_mtu_probing` the kernel sends smaller segments once some are lost again and again, and larger
ones later. Beside such losses it changes nothing, so it stays when the pod is released.
"""

from __future__ import annotations

import logging
from pathlib import Path

from agent.datapath import netns
from agent.datapath.host_root import HOST_ROOT
from control.kit.log import event

log = logging.getLogger("pods")

# The kernel shows the settings of the namespace that the thread is in, wherever /proc is mounted.
# A container's own /proc/sys is read-only.
SETTINGS = (Path("/proc/sys"), Path(HOST_ROOT + "/proc/sys"))
_NAME = "net/ipv4/tcp_mtu_probing"  # IPv6 goes by it too
_OFF, _WHEN_LOST = "0", "1"


class PathMtu:
    """Sets it in pods; a host that does not allow it is told of once."""

    def __init__(self, settings: tuple[Path, ...] = SETTINGS) -> None:
        self._files = [folder / _NAME for folder in settings]
        self._is_told = False

    def probe(self, netns_fd: int) -> None:
        """Switch it on where it is off; a pod that has chosen another value keeps that."""
        with netns.inside(netns_fd):
            problem = self._switch_on()
        if problem is not None and not self._is_told:
            self._is_told = True
            event(log, logging.WARNING, "path_mtu.not_probed", error=problem)

    def _switch_on(self) -> OSError | None:
        problem: OSError | None = None
        for file in self._files:
            try:
                if file.read_text().strip() == _OFF:
                    file.write_text(_WHEN_LOST)
            except OSError as exc:
                problem = problem or exc
            else:
                return None
        return problem
