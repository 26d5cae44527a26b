"""The second try of a connection whose first peer was lost before it answered, and the first one
past endpoints that do not answer. Decides; no I/O.

No byte of the app's has left its socket by then, so nothing is done twice. The second try is at
another endpoint of the service if there is one, and always through a tunnel: an address that is no
longer in the mesh is no reason for plaintext.
"""

from __future__ import annotations

from typing import Final

from ztunnel.connections.engine import SILENT_S, Engine
from ztunnel.connections.lanes import Lane
from ztunnel.connections.pod import Pod
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.route import ToTunnel
from ztunnel.refusals import Reason
from ztunnel.transport.ends import TunnelEnd
from ztunnel.transport.tunnel import Tunnel

# Ends of a tunnel after which the peer may live on, or another in its place.
_LOST: Final = frozenset(
    {TunnelEnd.CUT, TunnelEnd.CLOSED, TunnelEnd.PING_TIMEOUT, TunnelEnd.RETIRED, TunnelEnd.DRAINED}
)
# Reasons for having no tunnel that are the endpoint's own: another may be better. The same one, a
# moment later, is not.
_UNREACHED: Final = frozenset(
    {
        Reason.CONNECT_FAILED,
        Reason.HANDSHAKE_TIMEOUT,
        Reason.TLS_FAILED,
        Reason.HTTP2_FAILED,
    }
)


def preferred(engine: Engine, pod: Pod, lane: Lane, asked: Asked) -> Lane:
    """The lane that `route` has drawn, or one to another endpoint that answers, as far as is
    known."""
    now_s = engine.reactor.now_s
    if not pod.doubts.avoids(lane.workload, now_s):
        return lane
    other = _elsewhere(engine, pod, lane, asked)
    return lane if other is None or other.workload in pod.doubts.held else other


def after_silence(engine: Engine, pod: Pod, lane: Lane, asked: Asked) -> Lane | None:
    """The lane of a second try while the first peer does not answer; None if there is no other
    endpoint: the first may come late."""
    pod.doubts.raised(lane.workload, engine.reactor.now_s)
    return _another(engine, pod, lane, asked)


def after_no_tunnel(
    engine: Engine, pod: Pod, lane: Lane, asked: Asked, reason: Reason
) -> Lane | None:
    """The lane of a second try after the pool had no tunnel; None if there is to be none."""
    if reason is Reason.TUNNEL_LOST:
        return _elsewhere(engine, pod, lane, asked)
    return _another(engine, pod, lane, asked) if reason in _UNREACHED else None


def after_loss(
    engine: Engine, pod: Pod, lane: Lane, asked: Asked, end: TunnelEnd | None
) -> Lane | None:
    """The same after the tunnel ended under a request without an answer."""
    return _elsewhere(engine, pod, lane, asked) if end in _LOST else None


def instead_of(engine: Engine, pod: Pod, lane: Lane, asked: Asked, tunnel: Tunnel) -> Lane | None:
    """The same while a request waits for its answer; None as long as its tunnel is not in
    doubt."""
    if tunnel.pings.silent_s >= SILENT_S:
        pod.doubts.raised(lane.workload, engine.reactor.now_s)
    elif not tunnel.retired:
        return None
    return _elsewhere(engine, pod, lane, asked)


def _another(engine: Engine, pod: Pod, lane: Lane, asked: Asked) -> Lane | None:
    """The same endpoint, a moment later, is none."""
    other = _elsewhere(engine, pod, lane, asked)
    return None if other is None or other.workload == lane.workload else other


def _elsewhere(engine: Engine, pod: Pod, lane: Lane, asked: Asked) -> Lane | None:
    source = pod.workload(engine.state)
    if source is None:
        return None
    find, this = pod.lanes.elsewhere, frozenset((lane.workload,))
    other = find(engine.state, source, asked, engine.dice, this.union(pod.doubts.held))
    if other.workload == lane.workload:  # all others are in doubt
        other = find(engine.state, source, asked, engine.dice, this)
    return other if isinstance(other.decision, ToTunnel) else None
