"""One stream of an inbound tunnel: a CONNECT that is answered, dialled and relayed."""

from __future__ import annotations

import socket

from control.model.address import Endpoint
from control.model.policy import Connection
from control.model.workload import Workload
from ztunnel.connections.correlate import Fields, baggage
from ztunnel.connections.engine import Engine
from ztunnel.connections.first_word import FirstWord
from ztunnel.connections.inbound import still_permitted, tell_would_deny
from ztunnel.connections.pod import Pod
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.stream import Stream
from ztunnel.mesh.authorize import Admit, Refusal
from ztunnel.refusals import Flag, Reason
from ztunnel.telemetry.parties import Memo, Parties
from ztunnel.transport.dial import DialError, Dialling
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.relay import StreamRelay
from ztunnel.transport.sockets import end_handshake
from ztunnel.transport.tunnel import Tunnel


class Admission:
    """A yes, and everything that the streams with this answer share."""

    __slots__ = ("admit", "answer", "first_word", "memo")

    def __init__(self, admit: Admit) -> None:
        self.admit = admit
        self.answer: Fields = (("baggage", baggage(admit.workload)),)
        self.memo = Memo()
        self.first_word = FirstWord()


class InboundStream:
    """One CONNECT. It owns the stream until the app is connected; then its relay does."""

    __slots__ = (
        "_admission",
        "_dial",
        "_engine",
        "_held",
        "_peer_ended",
        "_permitted",
        "_pod",
        "_relay",
        "_sock",
        "_stream",
        "_tunnel",
        "outcome",
    )

    def __init__(
        self, engine: Engine, pod: Pod, tunnel: Tunnel, stream: Stream, parties: Parties
    ) -> None:
        self._engine = engine
        self._pod = pod
        self._tunnel = tunnel
        self._stream = stream
        self._dial: Dialling | None = None
        self._relay: StreamRelay | None = None
        # Bytes that a peer sends before our 200; at most the stream's window.
        self._held: bytearray | None = None
        self._peer_ended = False
        self._permitted: Connection | None = None
        self._admission: Admission | None = None
        self._sock: socket.socket | None = None  # while the first word is awaited
        self.outcome = engine.outcome(parties)
        tunnel.adopt(stream, self)

    def refuse(self, refusal: Refusal) -> None:
        parties = self.outcome.parties
        parties.target, parties.service = refusal.target, refusal.service
        self._engine.refuse(refusal.reason, parties.tenant)
        self._answer(refusal.status)
        self._leave(refusal.reason.flag, refusal.detail)

    def _answer(self, status: int) -> None:
        """Refuse, and free the stream with RST_STREAM(NO_ERROR) (RFC 9113 8.1)."""
        session = self._tunnel.session
        session.respond(self._stream, status, (), end_stream=True)
        session.reset(self._stream, ErrorCode.NO_ERROR)
        self._tunnel.touch()
        self._tunnel.stream_over(self._stream)

    def admit(self, admission: Admission, client: Endpoint, ended: bool) -> None:
        admitted = admission.admit
        parties = self.outcome.parties
        parties.service = admitted.service
        parties.target = admitted.target
        parties.policy = admitted.permit.policy
        self._admission = admission
        self._permitted = admitted.permit.connection
        self._peer_ended = ended
        if admitted.would_deny is not None:
            tell_would_deny(self._engine, admitted, parties.tenant)
        self._dial = self._engine.dialer.dial_app(
            self._pod.netns_fd,
            admitted.permit,
            self._dialled,
            client,
            admission.first_word.may_wait,
            parties.tenant,
        )

    def _dialled(self, result: socket.socket | DialError) -> None:
        self._dial = None
        if isinstance(result, DialError):
            self._engine.refuse(Reason.CONNECT_FAILED, self.outcome.parties.tenant)
            self._answer(503)
            self._leave(Reason.CONNECT_FAILED.flag, f"the app: {result.value}")
            return
        engine, tunnel, stream = self._engine, self._tunnel, self._stream
        admission = self._admission
        assert admission is not None
        tunnel.session.respond(stream, 200, admission.answer, end_stream=False)
        tunnel.touch()
        relay = StreamRelay(engine.reactor, result, tunnel, stream, self._relay_done)
        self._relay = relay
        self.outcome.opened(engine.counters, relay.moved_to_here)
        if admission.first_word.may_wait:
            self._sock = result
            engine.first_words.start(self)
        held = self._let_go()
        relay.start(held, ready=None, peer_ended=self._peer_ended)

    def on_first_word_due(self) -> None:
        sock, self._sock = self._sock, None
        if sock is not None and self._relay is not None and not self._relay.to_app_bytes:
            end_handshake(sock)

    # -- the stream while the app is being dialled -----------------------------------------------

    def on_response(self, status: int, ended: bool) -> None:
        raise AssertionError("a server's session passes no responses")

    def on_data(self, data: memoryview) -> None:
        self._hold(data)

    def _hold(self, data: bytes | memoryview) -> None:
        if self._held is None:
            self._held = bytearray()
        self._held += data
        self._tunnel.account.add(len(data))

    def on_data_run(self, pieces: list[memoryview]) -> None:
        self._hold(b"".join(pieces))

    def _let_go(self) -> bytearray | None:
        held, self._held = self._held, None
        if held is not None:
            self._tunnel.account.give(len(held))
        return held

    def on_end(self) -> None:
        self._peer_ended = True

    def on_window(self) -> None:
        """Nothing is sent before the response."""

    def on_reset(self, code: int) -> None:
        self._give_up(RelayEnd.PEER_RESET)

    def on_tunnel_lost(self, reason: RelayEnd) -> None:
        self._give_up(reason)

    # -- ends ------------------------------------------------------------------------------------

    def _relay_done(self, end: RelayEnd) -> None:
        if end is RelayEnd.FINISHED:
            self._leave(Flag.NONE, "")
        else:
            self._leave(Flag.DENY if end is RelayEnd.POLICY else Flag.NONE, end.value)

    def _give_up(self, end: RelayEnd) -> None:
        if self._dial is not None:
            self._dial.abandon()
            self._dial = None
        self._tunnel.stream_over(self._stream)
        self._leave(Flag.CONNECT, end.value)

    def _leave(self, flag: Flag, error: str) -> None:
        if self._sock is not None:
            self._sock = None
            self._engine.first_words.stop(self)
        relay, admission = self._relay, self._admission
        if relay is not None and admission is not None:
            admission.first_word.seen(relay.app_first, relay.to_app_bytes > 0)
        self._let_go()
        self._relay = None
        self.outcome.closed(self._engine.counters, flag, error)
        self._engine.leave(self._pod.inbound, self)

    def abort(self, reason: RelayEnd) -> None:
        if self._relay is not None:
            self._relay.abort(reason)
        elif not self.outcome.over:
            self._tunnel.session.reset(self._stream, ErrorCode.CANCEL)
            self._tunnel.touch()
            self._give_up(reason)

    def on_bug(self) -> None:
        self.abort(RelayEnd.INTERNAL_ERROR)

    def recheck(self, workload: Workload | None) -> None:
        if still_permitted(self._engine, workload, self._permitted):
            return
        self._engine.refuse(Reason.POLICY_CHANGED, None)
        self.abort(RelayEnd.POLICY)
