"""A worker: one reactor that serves the pods the supervisor gives it, by the supervisor's frames.

Everything comes through the channel, descriptors included; the worker opens no file and asks nobody
else. When the supervisor is gone the worker ends, because nobody could tell it about policy any
more.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Final

from control.kit.clock import Clock
from control.kit.errors import ConfigError, WireError
from control.kit.log import event, set_level, setup
from control.kit.memory import SETTLE_AT_S, settle
from control.kit.sink import LineSink, never_waiting
from control.model.identity import SpiffeId, parse_spiffe_id
from control.wire.direct import ZtunnelLine, encode, read_agent_line
from ztunnel.connections.engine import Engine
from ztunnel.connections.listeners import Pauses, listen
from ztunnel.connections.pod import Pod
from ztunnel.connections.recheck import Recheck
from ztunnel.connections.redirected import MarkedDialer, listen_redirected
from ztunnel.direct.path import WorkerDirect
from ztunnel.ipc import Frame, FrameKind, FrameTooLarge, IpcSocket
from ztunnel.loop.reactor import READABLE, WATCH_LEVEL, WRITABLE, Reactor
from ztunnel.loop.spin import Spin
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason
from ztunnel.telemetry.access_log import JSON, TEXT, AccessLog
from ztunnel.telemetry.turn_writer import TurnWriter
from ztunnel.transport.dial import Dialer
from ztunnel.transport.tls import Material
from ztunnel.worker import answers
from ztunnel.worker.answering import Answering
from ztunnel.worker.answers import Piece
from ztunnel.worker.bugs import Bugs
from ztunnel.worker.drain import Drain, Leave
from ztunnel.worker.intake import Intake
from ztunnel.worker.settings import WorkerSettings

log = logging.getLogger("ztunnel.worker")

BEAT_S: Final = 1.0  # the supervisor ends a worker that it does not hear for seven of them


class Worker:
    def __init__(
        self,
        channel: IpcSocket,
        clock: Clock,
        log_descriptor: int,
        settings: WorkerSettings,
        frames: Iterable[Frame] = (),
    ) -> None:
        """`frames` came behind the one with the settings."""
        self._channel = channel
        self._settings = settings
        self._bugs = Bugs()
        self.reactor = Reactor(self._bugs.report, spin=Spin(settings.spin_us))
        self._lines = TurnWriter(self.reactor, LineSink(never_waiting(log_descriptor)))
        setup(settings.log_level, settings.log_format, self._lines)
        self.engine = self._make_engine(clock)
        self._pauses = Pauses(self.engine)
        self._recheck = Recheck(self.engine)
        self._listen = listen_redirected if settings.fixed_ports else listen
        self._path: WorkerDirect | None = None  # where the kernel may carry connections itself
        if settings.direct:
            self._path = WorkerDirect(self.engine, self._tell_agent)
        self._intake = Intake(self._act, self._resources)
        self._intake.add(frames)
        self._answering = Answering(self.reactor, self._send_answer)
        self._leave = Leave(self.engine, self._tell_idle)
        self._drained = False
        self._actions: dict[FrameKind, Callable[[Frame], None]] = {
            FrameKind.POD_ADD: self._add_pod,
            FrameKind.POD_DELETE: self._delete_pod,
            FrameKind.CERTIFICATE: self._certificate,
            FrameKind.CERTIFICATE_FAILED: self._certificate_failed,
            FrameKind.CERTIFICATE_FORGOTTEN: self._certificate_forgotten,
            FrameKind.QUERY: self._query,
            FrameKind.LOG_LEVEL: self._log_level,
            FrameKind.UNANSWERED: self._unanswered,
            FrameKind.LEAVE: self._begin_leave,
            FrameKind.DRAIN: self._drain,
            FrameKind.GENERATION: self._generation,
            FrameKind.DIRECT: self._direct,
        }
        self.reactor.watch(channel.fileno(), self, WATCH_LEVEL)
        if self._intake.busy:
            self.reactor.again(self)
        for after_s in SETTLE_AT_S:
            self.reactor.countdown(after_s, lambda _worker: settle()).start(self)
        self._beats = self.reactor.countdown(BEAT_S, Worker._beat)
        self._beats.start(self)

    def _make_engine(self, clock: Clock) -> Engine:
        settings = self._settings
        style = JSON if settings.log_format == "json" else TEXT
        lines = AccessLog(clock, self._lines.put, style) if settings.access_log else None
        dialer = MarkedDialer(self.reactor) if settings.fixed_ports else Dialer(self.reactor)
        return Engine(
            self.reactor,
            clock,
            State(cluster_id=settings.cluster_id, node=settings.engine.node),
            settings.engine,
            dialer=dialer,
            access_log=lines,
            ask_certificate=self._ask_certificate,
            ask_address=self._ask_address,
        )

    def run(self) -> None:
        """Serve until the supervisor is gone."""
        self.reactor.run()
        self._lines.finish()
        self.reactor.close()

    # -- the channel -----------------------------------------------------------------------------

    def on_ready(self, events: int) -> None:
        try:
            if events & WRITABLE:
                self._channel.flush()
            # While some of what came waits, the rest waits in the pipe.
            readable = events & ~WRITABLE and not self._intake.busy
            frames = self._channel.receive() if readable else []
            if frames is None:
                level = logging.INFO if self._drained else logging.WARNING
                event(log, level, "supervisor.gone")
                self.reactor.stop()
                return
            if frames:
                self._intake.add(frames)
                self._take_in()
        except (WireError, OSError) as exc:
            self._lost(exc)
            return
        self._watch_channel()

    def on_again(self) -> None:
        try:
            self._take_in()
        except (WireError, OSError) as exc:
            self._lost(exc)

    def _take_in(self) -> None:
        self._intake.work()
        if self._intake.busy:
            self.reactor.again(self)

    def _lost(self, exc: Exception) -> None:
        event(log, logging.ERROR, "supervisor.lost", error=exc)
        self.reactor.stop()

    def on_bug(self) -> None:
        """End: a frame that was half handled leaves an unknown state. The supervisor starts a new
        worker."""
        self.reactor.stop()

    def _act(self, frame: Frame) -> None:
        action = self._actions.get(frame.kind)
        if action is None:
            frame.close()
            raise WireError(f"{frame.kind.name} is not for a worker that runs")
        try:
            action(frame)
        except (KeyError, TypeError, ValueError) as exc:
            frame.close()
            raise WireError(f"{frame.kind.name}: {exc!r}") from exc

    def _send(self, kind: FrameKind, value: dict[str, Any]) -> None:
        try:
            self._channel.send_json(kind, value)
        except FrameTooLarge as exc:  # our bug, and no reason to end every connection
            event(log, logging.ERROR, "frame.too_large", kind=kind.name, error=exc)
            self._bugs.report(self)
        self._watch_channel()

    def _beat(self) -> None:
        """Say that the loop turns, whatever waits in the intake. A supervisor that does not read
        is not told twice."""
        if not self._channel.wants_write and not self._drained:
            self._send(FrameKind.BEAT, {})
        self._beats.start(self)

    def _tell_agent(self, line: ZtunnelLine) -> None:
        self._channel.send(FrameKind.DIRECT, encode(line))
        self._watch_channel()

    def _watch_channel(self) -> None:
        wanted = READABLE | WRITABLE if self._channel.wants_write else READABLE
        self.reactor.watch(self._channel.fileno(), self, wanted)

    # -- the mesh's state ------------------------------------------------------------------------

    def _resources(self, entries: Sequence[Entry]) -> None:
        changed = self.engine.state.apply(entries)
        for uid in changed.moved:  # or a service's key
            self.engine.pool.retire(uid)
            if not self.engine.state.has(uid):
                self.engine.counters.departed.gone(uid)
        self._recheck.after(changed)
        if changed.addresses:
            self.engine.workloads_came()
        self.engine.lookups.told(each.name for each in entries if each.op is Op.KNOWN)
        if not self.engine.state.known.on_demand:
            self.engine.lookups.told_all()
        if changed.addresses and self._path is not None:
            self._path.offers.on_addresses()

    def _generation(self, frame: Frame) -> None:
        if self._path is not None:
            self._path.offers.on_generation(int(frame.json()["generation"]))

    def _direct(self, frame: Frame) -> None:
        if self._path is not None:
            self._path.take(read_agent_line(frame.payload))

    # -- pods ------------------------------------------------------------------------------------

    def _add_pod(self, frame: Frame) -> None:
        value = frame.json()
        netns, outbound, plaintext, hbone = frame.descriptors
        uid = str(value["uid"])
        self.engine.remove_pod(uid)  # the same pod in a new namespace
        pod = Pod(
            uid,
            str(value["name"]),
            str(value["namespace"]),
            str(value["service_account"]),
            netns,
            observer=None if self._path is None else self._path.offers,
        )
        self.engine.pods[uid] = pod
        sockets = [socket.socket(fileno=fd) for fd in (outbound, plaintext, hbone)]
        self._listen(self.engine, self._pauses, pod, *sockets)
        if self._path is not None:
            self._path.on_pods()
        event(log, logging.INFO, "pod.added", pod=uid, name=f"{pod.namespace}/{pod.name}")
        self._send(FrameKind.POD_READY, {"uid": uid})

    def _delete_pod(self, frame: Frame) -> None:
        uid = str(frame.json()["uid"])
        self.engine.remove_pod(uid)
        if self._path is not None:
            self._path.on_pods()
        event(log, logging.INFO, "pod.deleted", pod=uid)

    # -- certificates ----------------------------------------------------------------------------

    def _ask_certificate(self, identity: SpiffeId, waiting: bool) -> None:
        self._send(FrameKind.NEED_CERTIFICATE, {"identity": str(identity), "waiting": waiting})

    def _certificate(self, frame: Frame) -> None:
        value = frame.json()
        identity = parse_spiffe_id(str(value["identity"]))
        material = Material(
            str(value["key_pem"]).encode(),
            tuple(str(each).encode() for each in value["chain_pem"]),
            str(value["roots_pem"]).encode(),
        )
        try:
            self.engine.credentials.put(identity, material)
        except ConfigError as exc:
            self.engine.counters.refuse(Reason.UNUSABLE_CERTIFICATE)
            event(log, logging.ERROR, "certificate.unusable", identity=identity, error=exc)

    def _certificate_failed(self, frame: Frame) -> None:
        self.engine.credentials.fail(parse_spiffe_id(str(frame.json()["identity"])))

    def _certificate_forgotten(self, frame: Frame) -> None:
        self.engine.credentials.forget(parse_spiffe_id(str(frame.json()["identity"])))

    # -- addresses on demand ---------------------------------------------------------------------

    def _ask_address(self, pod: str, names: list[str], spare: bool) -> None:
        self._send(FrameKind.NEED_ADDRESSES, {"pod": pod, "names": names, "spare": spare})

    def _unanswered(self, frame: Frame) -> None:
        value = frame.json()
        names, reason = [str(each) for each in value["names"]], Reason[str(value["reason"])]
        self.engine.lookups.failed(str(value["pod"]), names, reason)

    # -- questions and orders --------------------------------------------------------------------

    def _query(self, frame: Frame) -> None:
        value = frame.json()
        self._answering.begin(int(value["id"]), self._answer(str(value["what"])))

    def _answer(self, what: str) -> Iterator[Piece]:
        match what:
            case "connections":
                return answers.connections(self.engine, self._path)
            case "metrics":
                return answers.metrics(
                    self.engine,
                    self._path,
                    bugs=self._bugs.count,
                    lines_dropped=self._lines.dropped,
                )
            case "names":
                return answers.names(self.engine)
            case "pools":
                return iter([{"pools": self.engine.pool.view()}])
            case _:
                return iter([{"error": "unknown question"}])

    def _send_answer(self, value: dict[str, Any]) -> None:
        self._send(FrameKind.ANSWER, value)

    def _log_level(self, frame: Frame) -> None:
        set_level(str(frame.json()["level"]), whole=True)

    def _begin_leave(self, _frame: Frame) -> None:
        event(log, logging.INFO, "leave.started")
        self._leave.begin()

    def _tell_idle(self, idle: bool) -> None:
        self._send(FrameKind.IDLE, {"idle": idle})

    def _drain(self, frame: Frame) -> None:
        self._leave.end()
        deadline_s = float(frame.json().get("deadline_s", self._settings.drain_s))
        event(log, logging.INFO, "drain.started", deadline_s=deadline_s)
        Drain(self.engine, deadline_s, self._after_drain).begin()

    def _after_drain(self) -> None:
        self._drained = True
        event(log, logging.INFO, "drain.finished")
        self._send(FrameKind.DRAINED, {})
