"""Connections that arrive for a pod through a tunnel, with an identity.

`authorize` decides, from the peer's certificate and this node's own knowledge alone; this acts. No
byte of a peer reaches the app before the answer is yes.
"""

from __future__ import annotations

import logging
import socket
from functools import partial
from typing import Final

from control.model.address import Endpoint, host_text
from control.model.identity import SpiffeId
from control.model.workload import Workload
from ztunnel.connections.correlate import forwarded_by
from ztunnel.connections.engine import Engine, tell
from ztunnel.connections.inbound_stream import Admission, InboundStream
from ztunnel.connections.pod import Pod
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.events import RequestReceived
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import SERVER_SETTINGS, Role
from ztunnel.mesh.authorize import Admit, Refusal, admit_connect
from ztunnel.mesh.roles import Accepted
from ztunnel.refusals import Reason
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.tenants.work import FIELD_WORK_S, HANDSHAKE_WORK_S, VIOLATION_WORK_S
from ztunnel.transport.credentials import Term
from ztunnel.transport.ends import TunnelEnd
from ztunnel.transport.sockets import reset
from ztunnel.transport.tls import TlsConnection, TlsContext, expect_trust_domain
from ztunnel.transport.tunnel import Tunnel

log = logging.getLogger("ztunnel.inbound")

# Requests of one tunnel that were refused, and none let in between. An honest client whose policy
# has changed sends some hundred a second; ten seconds of that, and it may dial again.
REFUSED_RUNNING_MAX: Final = 4000
# Ends that took some work to come to.
_VIOLATIONS: Final = (Reason.HTTP2, Reason.SILENT_RECORDS, Reason.ONLY_REFUSALS)
# Answers remembered for each tunnel: more ports than a pod serves.
ADMITTED_MAX: Final = 64
# The authority, and the service that the client says it dialled.
Question = tuple[str, str | None]


def _refuse(engine: Engine, reason: Reason, tenant: Tenancy, **fields: object) -> None:
    engine.refuse(reason, tenant)
    tell(engine, log, "inbound.refused", tenant, reason=reason, **fields)


def accept_tunnel(
    engine: Engine, pod: Pod, sock: socket.socket, peer: Endpoint, accepted: Accepted
) -> None:
    """Take a connection on the HBONE port; nothing is known about its other end yet. It waits for
    the control plane's word about a pod that has just started."""
    begin = partial(_begin, engine, pod, sock, peer, accepted)
    local = pod.workload(engine.state)
    if local is not None:
        begin(local)
        return
    refuse = partial(_refuse_unknown, engine, pod, sock, peer)
    if not engine.callers.wait(pod, begin, refuse):
        refuse()


def _refuse_unknown(engine: Engine, pod: Pod, sock: socket.socket, peer: Endpoint) -> None:
    source = engine.tenants.source(peer.address)
    _refuse(engine, Reason.UNKNOWN_LOCAL_WORKLOAD, source, pod=pod.uid, peer=peer)
    reset(engine.reactor, sock)


def _begin(
    engine: Engine,
    pod: Pod,
    sock: socket.socket,
    peer: Endpoint,
    accepted: Accepted,
    local: Workload,
) -> None:
    source = engine.tenants.source(peer.address)
    engine.tenants.work.spend(source, HANDSHAKE_WORK_S, engine.reactor.now_s)
    inbound = InboundTunnel(engine, pod, sock, peer, accepted, source)
    displaced = engine.tenants.handshakes.enter(source, inbound, engine.reactor.now_s)
    if displaced is not None:
        engine.reactor.serve(displaced, displaced.displace)
    engine.credentials.obtain(local.identity, inbound.begin)


class InboundTunnel:
    """A peer's tunnel to one pod: the peer is verified once, each of its streams is authorized."""

    __slots__ = (
        "_accepted",
        "_admitted",
        "_engine",
        "_generation",
        "_idle",
        "_over",
        "_peer",
        "_peer_host",
        "_pod",
        "_refused_running",
        "_sock",
        "_source",
        "_stranger",
        "_tenant",
        "_term",
        "_tunnel",
        "_useful",
    )

    def __init__(
        self,
        engine: Engine,
        pod: Pod,
        sock: socket.socket,
        peer: Endpoint,
        accepted: Accepted,
        stranger: Tenancy,
    ) -> None:
        """`stranger` is the address that it comes from, which holds a place for handshakes."""
        self._engine = engine
        self._pod = pod
        self._sock = sock
        self._peer = peer
        self._peer_host = host_text(peer.address)
        self._accepted = accepted
        self._stranger = stranger
        self._tenant: Tenancy | None = None  # the peer, once it is verified and has a place
        self._tunnel: Tunnel | None = None
        self._term = Term(0.0, 0.0)  # its certificate's, from then on
        self._over = False
        self._idle = False
        self._useful = False  # a request was let in: that pays for the handshake
        self._refused_running = 0  # requests since the last one that was let in
        # Valid for one generation of the state: the peer's workload, and answers to its requests.
        self._generation = -1
        self._source: Workload | None = None
        self._admitted: dict[Question, Admission] = {}

    def begin(self, context: TlsContext | None) -> None:
        engine = self._engine
        if self._over:
            return
        if context is None or engine.pods.get(self._pod.uid) is not self._pod:
            self._end(Reason.NO_CERTIFICATE)
            return
        judge = expect_trust_domain(engine.config.trust_domain)
        tls = TlsConnection(context, server=True, judge=judge)
        session = Session(Role.SERVER, SERVER_SETTINGS)
        tunnel = Tunnel(engine.reactor, engine.keepalive, self._sock, tls, session, self)
        tunnel.tenant = self._stranger
        self._tunnel = tunnel
        self._pod.tunnels[tunnel] = None
        tunnel.start()

    # -- its places ------------------------------------------------------------------------------

    def _end(self, reason: Reason) -> None:
        """End what is not a tunnel yet."""
        self._over = True
        self._handshake_over()
        _refuse(self._engine, reason, self._stranger, pod=self._pod.uid, peer=self._peer)
        reset(self._engine.reactor, self._sock)

    def _handshake_over(self) -> None:
        self._engine.tenants.handshakes.leave(self._stranger, self)

    def displace(self) -> None:
        """Make room: others need the place, and this one has had it for longest."""
        if self._tunnel is not None:
            self._tunnel.dismiss(Reason.HANDSHAKE_DISPLACED, "")
        else:
            self._end(Reason.HANDSHAKE_DISPLACED)

    def make_room(self) -> None:
        """End in order: the tunnel is idle, and others need its place, or it was so for long."""
        self._not_idle()
        if self._tunnel is not None:
            self._tunnel.drain()
            self._engine.farewells.start(self)

    def on_farewell_due(self) -> None:
        """The peer has had time to see the GOAWAY."""
        if self._tunnel is not None and not self._tunnel.streams:
            self._tunnel.close(TunnelEnd.IDLE)

    def on_bug(self) -> None:
        if self._tunnel is not None:
            self._tunnel.on_bug()

    def _now_idle(self) -> None:
        tenant, tenants = self._tenant, self._engine.tenants
        if self._idle or self._over or tenant is None:
            return
        self._idle = True
        displaced = tenants.idle.enter(tenant, self, self._engine.reactor.now_s)
        if displaced is not None:
            self._engine.reactor.serve(displaced, displaced.make_room)

    def _not_idle(self) -> None:
        if self._idle and self._tenant is not None:
            self._idle = False
            self._engine.tenants.idle.leave(self._tenant, self)

    # -- as the tunnel's user --------------------------------------------------------------------

    def tunnel_opened(self, tunnel: Tunnel, peer: SpiffeId) -> None:
        engine = self._engine
        self._handshake_over()
        tenant = engine.tenants.peer(peer)
        tunnel.tenant = tenant
        tunnel.pay_with(engine.tenants.account(tenant))
        engine.reactor.take_over(tenant, tunnel.handshake_s)
        if not engine.tenants.tunnels.take(tenant):
            tunnel.dismiss(Reason.TUNNELS_MAX, "")
            return
        self._tenant = tenant
        self._term = engine.credentials.term(tunnel.peer_not_after_s)
        engine.counters.count("inbound_tunnels_opened")
        local = self._pod.workload(engine.state)
        if local is not None:
            engine.lookups.want(engine.state, self._pod, local.network, self._peer.address)
        self._now_idle()

    def tunnel_freed(self, tunnel: Tunnel) -> None:
        if not tunnel.streams:
            self._now_idle()

    def tunnel_draining(self, tunnel: Tunnel) -> None:
        """Nothing to do: the tunnel closes itself after the last stream."""

    def tunnel_closed(self, tunnel: Tunnel, end: TunnelEnd, detail: str) -> None:
        engine, tenant = self._engine, self._tenant
        self._handshake_over()
        self._not_idle()
        self._over = True
        self._tunnel = None
        engine.farewells.stop(self)
        self._pod.tunnels.pop(tunnel, None)
        if tenant is not None:
            engine.tenants.tunnels.give(tenant)
        reason = tunnel.refusal
        if reason is None and end is TunnelEnd.HANDSHAKE_TIMEOUT:
            reason = Reason.HANDSHAKE_TIMEOUT
        elif reason is None and end is TunnelEnd.PROTOCOL:
            reason = Reason.HTTP2
        if reason is not None:
            payer = tunnel.tenant or self._stranger
            if reason in _VIOLATIONS:
                engine.tenants.work.spend(payer, VIOLATION_WORK_S, engine.reactor.now_s)
            _refuse(engine, reason, payer, peer=self._peer, detail=detail or end.value)

    def tunnel_requested(self, tunnel: Tunnel, request: RequestReceived) -> None:
        engine, peer = self._engine, tunnel.peer
        assert peer is not None
        if self._idle:
            self._not_idle()
        if engine.reactor.now_s >= self._term.turn_s and self._is_over(tunnel, request):
            return
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
                self._refuse(tunnel, request, self._parties(local, client, peer), verdict)
                return
            admission = self._admission(asked, verdict)
        parties = self._parties(local, client, peer)
        tenant = parties.tenant
        if tenant is not None and not engine.tenants.connections.may(tenant):
            full = Refusal(503, Reason.CONNECTIONS_MAX, "the peer has too many connections")
            self._refuse(tunnel, request, parties, full)
            return
        if self._refused_running or not self._useful:
            self._was_useful()
        parties.memo = admission.memo
        connection = InboundStream(engine, self._pod, tunnel, request.stream, parties)
        engine.enter(self._pod.inbound, connection, tenant)
        connection.admit(admission, client, request.ended)

    def _is_over(self, tunnel: Tunnel, request: RequestReceived) -> bool:
        """True after the end of the peer's certificate: a request is let in by a valid one alone.
        A little before, the peer is told to dial again."""
        tunnel.drain()
        if self._engine.reactor.now_s < self._term.end_s:
            return False
        tunnel.session.reset(request.stream, ErrorCode.REFUSED_STREAM)  # it may ask elsewhere
        tunnel.touch()
        assert self._tenant is not None
        detail = "it has ended since the handshake"
        _refuse(self._engine, Reason.PEER_CERTIFICATE, self._tenant, peer=self._peer, detail=detail)
        self._count_refused(tunnel, Reason.PEER_CERTIFICATE)
        return True

    def _parties(self, local: Workload | None, client: Endpoint, peer: SpiffeId) -> Parties:
        return Parties(
            Reporter.DESTINATION,
            client,
            self._accepted,
            self._source,
            local,
            source_identity=peer,
            destination_identity=local.identity if local else None,
            tenant=self._tenant,
        )

    def _refuse(
        self, tunnel: Tunnel, request: RequestReceived, parties: Parties, refusal: Refusal
    ) -> None:
        engine, tenant = self._engine, self._tenant
        connection = InboundStream(engine, self._pod, tunnel, request.stream, parties)
        engine.enter(self._pod.inbound, connection, tenant)
        connection.refuse(refusal)
        if tenant is not None:
            cost_s = FIELD_WORK_S * len(request.headers)
            engine.tenants.work.spend(tenant, cost_s, engine.reactor.now_s)
        self._count_refused(tunnel, refusal.reason)

    def _count_refused(self, tunnel: Tunnel, reason: Reason) -> None:
        self._refused_running += 1
        if self._refused_running >= REFUSED_RUNNING_MAX:
            tunnel.dismiss(Reason.ONLY_REFUSALS, reason.word)

    def _was_useful(self) -> None:
        self._refused_running = 0
        if self._tenant is not None:
            self._tenant.trusted = True
        if not self._useful:
            self._useful = True
            self._stranger.trusted = True
            self._engine.tenants.work.earn(self._stranger, HANDSHAKE_WORK_S)

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
