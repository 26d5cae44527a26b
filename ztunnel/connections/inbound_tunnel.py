"""Connections that arrive for a pod through a tunnel, with an identity.

`authorize` decides, from the peer's certificate and this node's own knowledge alone; this acts. No
byte of a peer reaches the app before the answer is yes.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

from control.kit.log import event
from control.model.address import Endpoint, host_text
from control.model.identity import SpiffeId
from control.model.workload import Workload
from ztunnel.connections.correlate import forwarded_by
from ztunnel.connections.engine import Engine
from ztunnel.connections.inbound_stream import Admission, InboundStream
from ztunnel.connections.pod import Pod
from ztunnel.hbone.events import RequestReceived
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role
from ztunnel.hbone.stream import Stream
from ztunnel.mesh.authorize import Admit, Refusal, admit_connect
from ztunnel.mesh.roles import Accepted
from ztunnel.refusals import Reason
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.transport.ends import TunnelEnd
from ztunnel.transport.sockets import reset
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_trust_domain
from ztunnel.transport.tunnel import Tunnel

log = logging.getLogger("ztunnel.inbound")

# Answers remembered for each tunnel: more ports than a pod serves.
ADMITTED_MAX: Final = 64
# The authority, and the service that the client says it dialled.
Question = tuple[str, str | None]


def _refuse(engine: Engine, reason: Reason, **fields: object) -> None:
    engine.counters.refuse(reason)
    event(log, logging.WARNING, "inbound.refused", reason=reason, **fields)


def accept_tunnel(
    engine: Engine, pod: Pod, sock: socket.socket, peer: Endpoint, accepted: Accepted
) -> None:
    """Take a connection on the HBONE port; nothing is known about its other end yet."""
    local = pod.workload(engine.state)
    if local is None:
        _refuse(engine, Reason.UNKNOWN_LOCAL_WORKLOAD, pod=pod.uid, peer=peer)
        reset(engine.reactor, sock)
    elif not engine.handshakes.enter(peer.address):
        _refuse(engine, Reason.TOO_MANY_HANDSHAKES, peer=peer)
        reset(engine.reactor, sock)
    else:
        inbound = InboundTunnel(engine, pod, sock, peer, accepted)
        engine.credentials.obtain(local.identity, inbound.begin)


class InboundTunnel:
    """A peer's tunnel to one pod: the peer is verified once, each of its streams is authorized."""

    __slots__ = (
        "_accepted",
        "_admitted",
        "_engine",
        "_generation",
        "_handshaking",
        "_peer",
        "_peer_host",
        "_pod",
        "_sock",
        "_source",
    )

    def __init__(
        self, engine: Engine, pod: Pod, sock: socket.socket, peer: Endpoint, accepted: Accepted
    ) -> None:
        self._engine = engine
        self._pod = pod
        self._sock = sock
        self._peer = peer
        self._peer_host = host_text(peer.address)
        self._accepted = accepted
        # Valid for one generation of the state: the peer's workload, and answers to its requests.
        self._generation = -1
        self._source: Workload | None = None
        self._admitted: dict[Question, Admission] = {}
        self._handshaking = True  # the place was taken by `accept_tunnel`

    def begin(self, context: TlsContext | None) -> None:
        engine = self._engine
        if context is None or engine.pods.get(self._pod.uid) is not self._pod:
            self._handshake_over()
            _refuse(engine, Reason.NO_CERTIFICATE, pod=self._pod.uid, peer=self._peer)
            reset(engine.reactor, self._sock)
            return
        judge = expect_trust_domain(engine.config.trust_domain)
        tls = TlsConnection(context, server=True, judge=judge)
        tunnel = Tunnel(
            engine.reactor,
            engine.keepalive,
            self._sock,
            tls,
            Session(Role.SERVER, SERVER_SETTINGS),
            self,
        )
        self._pod.tunnels[tunnel] = None
        tunnel.start()

    def _handshake_over(self) -> None:
        if self._handshaking:
            self._handshaking = False
            self._engine.handshakes.leave(self._peer.address)

    def tunnel_opened(self, tunnel: Tunnel, _peer: SpiffeId) -> None:
        self._handshake_over()
        self._engine.counters.count("inbound_tunnels_opened")

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        """Nothing to do: the client decides when an idle tunnel ends."""

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        """Nothing to do: the tunnel closes itself after the last stream."""

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        refused = self._handshaking
        self._handshake_over()
        self._pod.tunnels.pop(tunnel, None)
        if end is TunnelEnd.TLS or (refused and end is TunnelEnd.HANDSHAKE_TIMEOUT):
            reason = tunnel.refusal or Reason.HANDSHAKE_TIMEOUT
            _refuse(self._engine, reason, peer=self._peer, detail=detail or end.value)
        elif end is TunnelEnd.PROTOCOL:
            _refuse(self._engine, Reason.HTTP2, peer=self._peer, detail=detail)

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None:
        engine, peer = self._engine, tunnel.peer
        assert peer is not None
        local = self._pod.workload(engine.state)
        if self._generation != engine.state.generation:
            self._learn(local, peer)
        client, said = forwarded_by(request.headers, self._peer, self._peer_host)
        # Most clients of a tunnel say the same; what they say takes part in the telemetry.
        asked = (request.authority, said)
        admission = self._admitted.get(asked)
        if admission is None or request.method != "CONNECT":
            verdict = self._verdict(local, request, peer, said)
            if isinstance(verdict, Refusal):
                self._refuse(tunnel, request.stream, self._parties(local, client, peer), verdict)
                return
            admission = self._admission(asked, verdict)
        parties = self._parties(local, client, peer)
        parties.memo = admission.memo
        connection = InboundStream(engine, self._pod, tunnel, request.stream, parties)
        engine.enter(self._pod.inbound, connection)
        connection.admit(admission, client, request.ended)

    def _parties(self, local: Workload | None, client: Endpoint, peer: SpiffeId) -> Parties:
        return Parties(
            Reporter.DESTINATION,
            client,
            self._accepted,
            self._source,
            local,
            source_identity=peer,
            destination_identity=local.identity if local else None,
        )

    def _refuse(self, tunnel: Tunnel, stream: Stream, parties: Parties, refusal: Refusal) -> None:
        connection = InboundStream(self._engine, self._pod, tunnel, stream, parties)
        self._engine.enter(self._pod.inbound, connection)
        connection.refuse(refusal)

    def _learn(self, local: Workload | None, peer: SpiffeId) -> None:
        """Forget the answers of an older state, and find the peer's workload in this one."""
        state = self._engine.state
        self._generation = state.generation
        self._admitted.clear()
        found = state.workload_at(local.network, self._peer.address) if local else None
        # An address that contradicts the certificate proves nothing.
        self._source = found if found is not None and found.identity == peer else None

    def _verdict(
        self, local: Workload | None, request: RequestReceived, peer: SpiffeId, said: str | None
    ) -> Admit | Refusal:
        if request.method != "CONNECT":
            return Refusal(400, Reason.NOT_CONNECT, f"method {request.method}")
        if local is None:
            return Refusal(503, Reason.UNKNOWN_LOCAL_WORKLOAD, "the pod is not known yet")
        verdict = admit_connect(
            self._engine.state,
            local,
            self._accepted,
            request.authority,
            peer,
            self._peer.address,
            said,
        )
        if isinstance(verdict, Refusal):
            return verdict
        if verdict.target.port in self._pod.own_ports:
            return Refusal(503, Reason.RECURSION, "the port is the tunnel's own")
        return verdict

    def _admission(self, asked: Question, verdict: Admit) -> Admission:
        """Remember a yes: most streams of a tunnel ask for the same. `admit_connect` is pure, so it
        holds as long as the state is the same."""
        made = Admission(verdict)
        true = verdict.service is not None or not asked[1]
        if true and len(self._admitted) < ADMITTED_MAX:  # lies are of any number and length
            self._admitted[asked] = made
        return made
