"""A connection that a pod's app opened: from the accept to the tunnel, or past the mesh.

`route()` decides; this acts. The app's bytes stay in its socket until the other side has said 200.
"""

from __future__ import annotations

import logging
import select
import socket
from functools import partial
from typing import Final

from control.model.address import Endpoint
from control.model.workload import Workload
from ztunnel.connections import second_try
from ztunnel.connections.correlate import single_request_fields
from ztunnel.connections.engine import RESPONSE_S, Engine, tell
from ztunnel.connections.lanes import Lane
from ztunnel.connections.pod import Pod
from ztunnel.connections.pool_failure import PoolFailure, failure_of
from ztunnel.hbone.errors import CannotOpen, ErrorCode
from ztunnel.hbone.stream import Stream
from ztunnel.loop.reactor import WATCH_READ
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.route import Refuse, ToTunnel, Wait
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.parties import Parties, Reporter
from ztunnel.tenants.tenancy import Tenancy
from ztunnel.transport.dial import DialError, Dialling
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.passthrough import SocketRelay
from ztunnel.transport.relay import StreamRelay
from ztunnel.transport.sockets import reset
from ztunnel.transport.tunnel import Tunnel

log = logging.getLogger("ztunnel.outbound")

_GONE: Final = select.EPOLLERR | select.EPOLLHUP

# The peer has not looked at a stream that it refuses by GOAWAY, so the stream may go elsewhere. A
# peer that refuses three times in a row will not take it.
TRIES_MAX: Final = 3


def accept_outbound(engine: Engine, pod: Pod, sock: socket.socket, client: Endpoint) -> None:
    """Take a connection that the kernel steered here, or that was opened to the listener itself."""
    original = engine.original_destination(sock)
    if original is None:
        # Fail closed: without the kernel's word the app's destination is unknown.
        _refuse(engine, Reason.NO_ORIGINAL_DESTINATION, pod, sock, client)
        return
    asked, hint = original
    if asked.port in pod.own_ports and asked.address == client.address:
        _refuse(engine, Reason.RECURSION, pod, sock, client)
        return
    source = pod.workload(engine.state)
    if source is None:
        _wait(engine, pod, sock, client, asked, hint)
        return
    _begin(engine, pod, sock, client, asked, hint, source)


def _begin(
    engine: Engine,
    pod: Pod,
    sock: socket.socket,
    client: Endpoint,
    asked: Asked,
    hint: Hint,
    source: Workload,
) -> None:
    connection = Outbound(engine, pod, sock, client, source, asked)
    engine.enter(pod.outbound, connection, pod.tenant)
    engine.reactor.serve(connection, connection.begin, hint)


def _wait(
    engine: Engine, pod: Pod, sock: socket.socket, client: Endpoint, asked: Asked, hint: Hint
) -> None:
    """Wait for the control plane's word about a pod that has just started."""
    refuse = partial(_refuse, engine, Reason.UNKNOWN_LOCAL_WORKLOAD, pod, sock, client)
    begin = partial(_begin, engine, pod, sock, client, asked, hint)
    if not engine.newcomers.wait(pod, begin, refuse):
        refuse()


def _refuse(
    engine: Engine, reason: Reason, pod: Pod, sock: socket.socket, client: Endpoint
) -> None:
    engine.refuse(reason, pod.tenant)
    tell(engine, log, "outbound.refused", pod.tenant, reason=reason, pod=pod.uid, client=client)
    reset(engine.reactor, sock)


class Outbound:
    """One connection of an app. It owns the stream until the 200; then its relay does."""

    __slots__ = (
        "_asked",
        "_asked_s",
        "_dial",
        "_engine",
        "_lane",
        "_moved",
        "_pod",
        "_ready",
        "_relay",
        "_sock",
        "_source",
        "_stream",
        "_tries",
        "_tunnel",
        "outcome",
    )

    def __init__(
        self,
        engine: Engine,
        pod: Pod,
        sock: socket.socket,
        client: Endpoint,
        source: Workload,
        asked: Asked,
    ) -> None:
        self._engine = engine
        self._pod = pod
        self._sock = sock
        self._source = source
        self._asked = asked
        self._lane: Lane | None = None
        self._dial: Dialling | None = None
        self._tunnel: Tunnel | None = None
        self._stream: Stream | None = None
        self._relay: StreamRelay | SocketRelay | None = None
        self._tries = 0
        self._asked_s = 0.0
        self._moved = False  # it has had its second try
        self._ready = 0  # epoll's bits for the app's socket so far
        self.outcome = engine.outcome(
            Parties(Reporter.SOURCE, client, asked, source, original=asked, tenant=pod.tenant)
        )

    @property
    def payer(self) -> Tenancy:
        return self._pod.tenant

    def begin(self, hint: Hint) -> None:
        engine = self._engine
        # Watched from the start: its first bytes are read in the turn of the 200, and an app that
        # gives up frees its place.
        engine.reactor.watch(self._sock.fileno(), self, WATCH_READ)
        if engine.state.known.on_demand:
            self._pod.dials(self._asked)
        self._go(self._find(hint))

    def _find(self, hint: Hint) -> Lane:
        engine, pod, asked = self._engine, self._pod, self._asked
        lane = pod.lanes.find(engine.state, self._source, asked, hint, engine.dice)
        return second_try.preferred(engine, pod, lane, asked) if pod.doubts.held else lane

    def _go(self, lane: Lane) -> None:
        self._lane = lane
        parties = self.outcome.parties
        decision = lane.decision
        parties.service = decision.service
        if isinstance(decision, ToTunnel):
            parties.destination = decision.workload
            parties.destination_address = decision.dial
            parties.target = decision.target
            self._acquire()
        elif isinstance(decision, Refuse):
            self._fail(decision.reason, decision.reason.word)
        elif isinstance(decision, Wait):
            if not self._engine.lookups.wait(self._pod, self, decision.names):
                self._fail(Reason.LOOKUPS_MAX, Reason.LOOKUPS_MAX.word)
        else:
            parties.destination = decision.workload
            parties.destination_address = decision.target
            self._dial = self._engine.dialer.dial(
                self._pod.netns_fd, decision.target, self._passthrough_dialled, self._pod.tenant
            )

    def on_known(self) -> None:
        self._source = self._pod.workload(self._engine.state) or self._source
        self._go(self._find(Hint.NONE))

    def on_unknown(self, reason: Reason) -> None:
        self._fail(reason, reason.word)

    def on_ready(self, events: int) -> None:
        """Watch the app's socket until a relay has it. A reset ends the connection; a FIN does not,
        because an app that only wants to listen may send it at once."""
        self._ready |= events
        if events & _GONE:
            self._abandon(Reason.APP_LEFT, RelayEnd.APP_RESET)

    def _acquire(self) -> None:
        lane = self._lane
        assert lane is not None
        assert lane.key is not None
        self._tries += 1
        if self._tries > TRIES_MAX:
            self._fail(Reason.STREAM_REFUSED, RelayEnd.PEER_REFUSED.value)
            return
        slot = lane.slot
        if slot is None or slot.gone:
            slot = lane.slot = self._engine.pool.slot(
                self._pod.netns_fd, lane.key, self._pod.tenant
            )
        slot.acquire(self)

    # -- past the mesh ---------------------------------------------------------------------------

    def _passthrough_dialled(self, result: socket.socket | DialError) -> None:
        self._dial = None
        if isinstance(result, DialError):
            self._fail(Reason.CONNECT_FAILED, result.value)
            return
        engine, pod = self._engine, self._pod
        account = engine.tenants.account(pod.tenant)
        pod.tenant.trusted = True
        relay = SocketRelay(engine.reactor, self._sock, result, self._relay_done, account)
        self._relay = relay
        self.outcome.opened(self._engine.counters, relay.moved_bytes)
        relay.start()

    # -- through a tunnel ------------------------------------------------------------------------

    def on_tunnel(self, tunnel: Tunnel) -> None:
        engine, lane = self._engine, self._lane
        assert lane is not None
        decision = lane.decision
        assert isinstance(decision, ToTunnel)
        once = single_request_fields(self.outcome.parties.source_address, lane.host, engine.random)
        try:
            stream = tunnel.session.request(decision.authority, lane.fields, once)
        except CannotOpen:
            self._acquire()
            return
        self._tunnel, self._stream = tunnel, stream
        tunnel.adopt(stream, self)
        tunnel.touch()
        self._asked_s = engine.reactor.now_s
        engine.responses.start(self)

    def on_no_tunnel(self, why: PoolFailure) -> None:
        lane = self._lane
        assert lane is not None
        other = second_try.after_no_tunnel(self._engine, self._pod, lane, self._asked, why.reason)
        if not self._moves(other):
            self._fail(why.reason, why.detail, why.flag)

    def on_slow(self) -> None:
        lane = self._lane
        assert lane is not None
        other = second_try.after_silence(self._engine, self._pod, lane, self._asked)
        if other is not None and not self._moved and lane.key is not None:
            self._engine.pool.withdraw(lane.key, self)
            self._moves(other)

    def on_response(self, status: int, ended: bool) -> None:
        engine, lane, tunnel, stream = self._engine, self._lane, self._tunnel, self._stream
        assert lane is not None
        assert tunnel is not None
        assert stream is not None
        engine.responses.stop(self)
        if self._pod.doubts.held:
            self._pod.doubts.settled(lane.workload)
        if status != 200:
            self._let_go()
            reason = Reason.of_status(status)
            flag = Flag.DENY if status == 401 else reason.flag
            self._fail(reason, f"the peer answered {status}", flag)
            return
        self._pod.tenant.trusted = True
        outcome = self.outcome
        parties = outcome.parties
        observer = self._pod.observer
        if observer is not None and isinstance(lane.decision, ToTunnel):
            observer.admitted(self._pod, self._source, self._asked, lane.decision)
        parties.source_identity = lane.identity
        parties.destination_identity = tunnel.peer
        parties.memo = lane.memo(tunnel.peer)
        relay = StreamRelay(engine.reactor, self._sock, tunnel, stream, self._relay_done)
        self._relay = relay
        outcome.opened(engine.counters, relay.moved_from_here)
        relay.start(None, ready=self._ready, peer_ended=ended)

    def on_data(self, data: memoryview) -> None:
        raise AssertionError("the session passes no data before the response")

    def on_data_run(self, pieces: list[memoryview]) -> None:
        raise AssertionError("the session passes no data before the response")

    def on_end(self) -> None:
        """Nothing to do: the session itself breaks a stream that ends without an answer."""

    def on_window(self) -> None:
        """Nothing is sent before the response."""

    def on_reset(self, code: int) -> None:
        self._engine.responses.stop(self)
        self._release()
        if code == ErrorCode.REFUSED_STREAM:
            self._acquire()  # the peer has not looked at it (RFC 9113 8.7)
        else:
            self._fail(Reason.STREAM_RESET, f"the peer reset the stream ({code})")

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        lane, tunnel = self._lane, self._tunnel
        assert lane is not None
        assert tunnel is not None
        self._engine.responses.stop(self)
        why = failure_of(tunnel.end, tunnel.detail)
        self._release()
        other = second_try.after_loss(self._engine, self._pod, lane, self._asked, tunnel.end)
        if not self._moves(other):
            self._fail(why.reason, why.detail, why.flag)

    def on_response_due(self) -> None:
        engine, lane, tunnel = self._engine, self._lane, self._tunnel
        assert lane is not None
        assert tunnel is not None
        if engine.reactor.now_s - self._asked_s >= RESPONSE_S:
            self._let_go()
            self._fail(Reason.RESPONSE_TIMEOUT, "the peer did not answer in time")
            return
        other = second_try.instead_of(engine, self._pod, lane, self._asked, tunnel)
        if other is None or self._moved:
            tunnel.probe()
            engine.responses.start(self)
            return
        self._let_go()
        tunnel.retire()
        self._moves(other)

    def _moves(self, lane: Lane | None) -> bool:
        """Try once more, and no more: all of the app's bytes are still in its socket."""
        if lane is None or self._moved:
            return False
        self._moved = True
        self._source = self._pod.workload(self._engine.state) or self._source
        self._engine.counters.count("connections_moved")
        self._go(lane)
        return True

    def _release(self) -> None:
        if self._tunnel is not None and self._stream is not None:
            tunnel, stream = self._tunnel, self._stream
            self._tunnel = self._stream = None
            tunnel.stream_over(stream)

    def _let_go(self) -> None:
        if self._tunnel is not None and self._stream is not None:
            self._tunnel.session.reset(self._stream, ErrorCode.CANCEL)
            self._tunnel.touch()
            self._release()

    # -- ends ------------------------------------------------------------------------------------

    def _relay_done(self, end: RelayEnd) -> None:
        self._leave(Flag.NONE, "" if end is RelayEnd.FINISHED else end.value)

    def _fail(self, reason: Reason, detail: str, flag: Flag | None = None) -> None:
        """`flag` replaces that of the reason."""
        if self.outcome.over:
            return
        self._engine.refuse(reason, self._pod.tenant)
        reset(self._engine.reactor, self._sock)
        self._leave(flag or reason.flag, detail)

    def _leave(self, flag: Flag, error: str) -> None:
        self.outcome.closed(self._engine.counters, flag, error)
        self._engine.leave(self._pod.outbound, self)
        self._relay = None

    def abort(self, reason: RelayEnd) -> None:
        if self._relay is not None:
            self._relay.abort(reason)
        else:
            self._abandon(Reason.ABORTED, reason)

    def _abandon(self, reason: Reason, why: RelayEnd) -> None:
        """End it before it has a relay."""
        if self._dial is not None:
            self._dial.abandon()
        self._engine.lookups.withdraw(self)
        if self._lane is not None and self._lane.key is not None:
            self._engine.pool.withdraw(self._lane.key, self)
        self._engine.responses.stop(self)
        self._let_go()
        self._fail(reason, why.value)

    def recheck(self, workload: Workload | None) -> None:
        """Nothing to do: the destination decides."""

    def on_bug(self) -> None:
        self.abort(RelayEnd.INTERNAL_ERROR)
