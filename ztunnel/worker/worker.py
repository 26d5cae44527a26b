"""A worker process: one reactor that serves the pods the supervisor gives it.

`python -m ztunnel.worker --fd N`: N is a socketpair whose other end is the supervisor. Everything
comes through it, descriptors included; the worker opens no file and asks nobody else. When the
supervisor is gone the worker ends, because nobody could tell it about policy any more.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import socket
import sys
from collections.abc import Callable, Sequence
from typing import Any, Final

from control.kit.clock import Clock, SystemClock
from control.kit.errors import ConfigError, WireError
from control.kit.log import event, set_level, setup
from control.kit.memory import SETTLE_AT_S, settle, spare_collector
from control.kit.sink import LineSink, never_waiting
from control.model.identity import SpiffeId, parse_spiffe_id
from ztunnel.connections.engine import Engine, EngineConfig, Original
from ztunnel.connections.first_word import PATIENCE_S
from ztunnel.connections.inbound_tunnel import InboundStream
from ztunnel.connections.listeners import Pauses, listen, original_destination
from ztunnel.connections.outbound import RESPONSE_S, Outbound
from ztunnel.connections.pod import Pod
from ztunnel.connections.pool import Pool
from ztunnel.connections.recheck import Recheck
from ztunnel.connections.redirected import MarkedDialer, listen_redirected
from ztunnel.direct.path import DirectPath
from ztunnel.ipc import Frame, IpcSocket, Kind
from ztunnel.loop.reactor import READABLE, WATCH_LEVEL, WRITABLE, Reactor, Served
from ztunnel.loop.spin import Spin
from ztunnel.loop.timeslice import shorten
from ztunnel.mesh.entries import Entry
from ztunnel.mesh.state import State
from ztunnel.telemetry.access_log import JSON, TEXT, AccessLog, TurnWriter
from ztunnel.transport.ends import RelayEnd, TunnelEnd
from ztunnel.transport.tls import Material
from ztunnel.worker.intake import Intake

log = logging.getLogger("ztunnel.worker")

# A buffer of one turn (512 KiB, twice that when OpenSSL grows one) is reused, not unmapped.
BUFFER_BYTES_KEPT_MAX: Final = 2 * 1024 * 1024
# Free memory at the end of the heap that is kept between two turns of a bulk transfer.
HEAP_BYTES_KEPT_MAX: Final = 4 * 1024 * 1024
_M_MMAP_THRESHOLD: Final = -3  # mallopt(3)
_M_TRIM_THRESHOLD: Final = -1

# Entries in one answer about connections; the admin page says when there were more.
CONNECTIONS_SHOWN_MAX: Final = 5000

Listen = Callable[[Engine, Pauses, Pod, socket.socket, socket.socket, socket.socket], None]


def make_engine(
    reactor: Reactor,
    clock: Clock,
    config: EngineConfig,
    state: State,
    ask_certificate: Callable[[SpiffeId, bool], None],
    original: Callable[[socket.socket], Original | None] = original_destination,
) -> Engine:
    """Put the parts together. `original` is the kernel's word for what an app dialled."""
    engine = Engine(reactor, clock, state, config, ask_certificate, original)
    engine.pool = Pool(reactor, engine.keepalive, engine.credentials, engine.dialer)
    engine.responses = reactor.countdown(RESPONSE_S, Outbound.on_response_due)
    engine.first_words = reactor.countdown(PATIENCE_S, InboundStream.on_first_word_due)
    return engine


def make_reactor(on_bug: Callable[[], None]) -> Reactor:
    """A reactor whose boundary logs the traceback and counts."""

    def report(item: Served) -> None:
        on_bug()
        log.exception("connection.bug", extra={"fields": {"kind": type(item).__name__}})

    return Reactor(report)


class Worker:
    """Acts on the supervisor's frames."""

    def __init__(self, channel: IpcSocket, clock: Clock, log_descriptor: int) -> None:
        self._channel = channel
        self._clock = clock
        self.internal_errors = 0
        self.reactor = make_reactor(self._count_bug)
        self._lines = TurnWriter(self.reactor, LineSink(never_waiting(log_descriptor)))
        setup("info", "text", self._lines)
        self.engine = self._make(EngineConfig(), State())
        self._pauses = Pauses(self.engine)
        self._recheck = Recheck(self.engine)
        self._intake = Intake(self._act, self._resources)
        self._drained = False
        self._path: DirectPath | None = None  # where the kernel may carry connections itself
        self._listen: Listen = listen
        self._actions: dict[Kind, Callable[[Frame], None]] = {
            Kind.CONFIG: self._configure,
            Kind.POD_ADD: self._add_pod,
            Kind.POD_DELETE: self._delete_pod,
            Kind.CERTIFICATE: self._certificate,
            Kind.CERTIFICATE_FAILED: self._certificate_failed,
            Kind.QUERY: self._query,
            Kind.LOG_LEVEL: self._log_level,
            Kind.DRAIN: self._drain,
            Kind.GENERATION: self._generation,
            Kind.DIRECT: self._direct,
        }
        self.reactor.watch(channel.fileno(), self, WATCH_LEVEL)
        for after_s in SETTLE_AT_S:
            self.reactor.countdown(after_s, lambda _worker: settle()).start(self)
        channel.send_json(Kind.READY, {})

    def _make(self, config: EngineConfig, state: State) -> Engine:
        return make_engine(self.reactor, self._clock, config, state, self._ask_certificate)

    def run(self) -> None:
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
        """A frame that we cannot handle leaves the worker in an unknown state: end it, the
        supervisor starts a new one."""
        self.reactor.stop()

    def _act(self, frame: Frame) -> None:
        action = self._actions.get(frame.kind)
        if action is None:
            frame.close()
            raise WireError(f"{frame.kind.name} is not for a worker")
        try:
            action(frame)
        except (KeyError, TypeError, ValueError) as exc:
            frame.close()
            raise WireError(f"{frame.kind.name}: {exc!r}") from exc

    def _send(self, kind: Kind, value: dict[str, Any]) -> None:
        self._channel.send_json(kind, value)
        self._watch_channel()

    def _watch_channel(self) -> None:
        wanted = READABLE | WRITABLE if self._channel.wants_write else READABLE
        self.reactor.watch(self._channel.fileno(), self, wanted)

    # -- configuration and state -----------------------------------------------------------------

    def _configure(self, frame: Frame) -> None:
        """The first frame of all: nothing is open yet, so the engine is made anew."""
        value = frame.json()
        log_format = str(value.get("log_format", "text"))
        setup(str(value.get("log_level", "info")), log_format, self._lines)
        style = JSON if log_format == "json" else TEXT
        self.engine.access_log = AccessLog(self._clock, self._lines.put, style)
        self.engine.config = EngineConfig(
            trust_domain=str(value.get("trust_domain", "cluster.local")),
            worker=int(value.get("worker", 0)),
            node=str(value.get("node", "")),
            access_log=bool(value.get("access_log", True)),
            drain_s=float(value.get("drain_s", 5.0)),
        )
        self.engine.state = State(
            cluster_id=str(value.get("cluster_id", "")), node=str(value.get("node", ""))
        )
        self.reactor.spin = Spin(int(value.get("spin_us", 0)))
        if value.get("fixed_ports"):
            dialer = MarkedDialer(self.reactor, self.engine.namespaces)
            self.engine.dialer = self.engine.pool.dialer = dialer
            self._listen = listen_redirected
        if value.get("direct"):
            tell = functools.partial(self._send, Kind.DIRECT)
            self._path = DirectPath(self.engine, tell)

    def _resources(self, entries: Sequence[Entry]) -> None:
        changed = self.engine.state.apply(entries)
        if changed.policies:
            self._recheck.begin()
        if changed.addresses and self._path is not None:
            self._path.offers.on_addresses()

    def _log_level(self, frame: Frame) -> None:
        set_level(str(frame.json()["level"]))

    def _generation(self, frame: Frame) -> None:
        if self._path is not None:
            self._path.offers.on_generation(int(frame.json()["generation"]))

    def _direct(self, frame: Frame) -> None:
        if self._path is not None:
            self._path.take(frame.json())

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
        )
        self.engine.pods[uid] = pod
        sockets = [socket.socket(fileno=fd) for fd in (outbound, plaintext, hbone)]
        self._listen(self.engine, self._pauses, pod, *sockets)
        if self._path is not None:
            self._path.offers.on_pods()
        event(log, logging.INFO, "pod.added", pod=uid, name=f"{pod.namespace}/{pod.name}")
        self._send(Kind.POD_READY, {"uid": uid})

    def _delete_pod(self, frame: Frame) -> None:
        uid = str(frame.json()["uid"])
        self.engine.remove_pod(uid)
        if self._path is not None:
            self._path.offers.on_pods()
        event(log, logging.INFO, "pod.deleted", pod=uid)

    # -- certificates ----------------------------------------------------------------------------

    def _ask_certificate(self, identity: SpiffeId, waiting: bool) -> None:
        self._send(Kind.NEED_CERTIFICATE, {"identity": str(identity), "waiting": waiting})

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
            self.engine.counters.refuse("unusable_certificate")
            event(log, logging.ERROR, "certificate.unusable", identity=identity, error=exc)

    def _certificate_failed(self, frame: Frame) -> None:
        self.engine.credentials.fail(parse_spiffe_id(str(frame.json()["identity"])))

    # -- questions -------------------------------------------------------------------------------

    def _query(self, frame: Frame) -> None:
        value = frame.json()
        answers: dict[str, Callable[[], dict[str, Any]]] = {
            "connections": self._connections,
            "metrics": self._metrics,
            "pools": lambda: {"pools": self.engine.pool.view()},
        }
        answer = answers.get(str(value["what"]))
        body = answer() if answer is not None else {"error": "unknown question"}
        self._send(Kind.ANSWER, {"id": value["id"], **body})

    def _connections(self) -> dict[str, Any]:
        shown = CONNECTIONS_SHOWN_MAX
        pods: dict[str, dict[str, list[dict[str, Any]]]] = {}
        for uid, pod in self.engine.pods.items():
            entry: dict[str, list[dict[str, Any]]] = {"inbound": [], "outbound": []}
            for name, book in (("inbound", pod.inbound), ("outbound", pod.outbound)):
                for connection in list(book)[: max(0, shown)]:
                    entry[name].append(connection.outcome.view(self.engine.config.worker))
                    shown -= 1
            pods[uid] = entry
        direct = {} if self._path is None else self._path.counts()
        return {"connections": pods, "truncated": shown < 0, "direct": direct}

    def _metrics(self) -> dict[str, Any]:
        engine = self.engine
        for pod in engine.pods.values():
            for book in (pod.outbound, pod.inbound):
                for connection in book:
                    connection.outcome.sync()
        counters: list[tuple[str, dict[str, str], int]] = list(engine.counters.export())
        counters.append(("tulle_ztunnel_internal_errors_total", {}, self.internal_errors))
        counters.append(
            ("tulle_ztunnel_source_not_shown_total", {}, engine.dialer.source_not_shown)
        )
        unknown = engine.state.unknown_policies
        counters.append(("tulle_ztunnel_unknown_policies_total", {}, unknown))
        counters.append(("tulle_ztunnel_turns_total", {}, self.reactor.turns))
        counters.append(("tulle_ztunnel_log_lines_dropped_total", {}, self._lines.dropped))
        outbound = sum(len(pod.outbound) for pod in engine.pods.values())
        inbound = sum(len(pod.inbound) for pod in engine.pods.values())
        gauges: list[tuple[str, dict[str, str], int]] = [
            ("istio_tcp_sockets_open", {"reporter": "source"}, outbound),
            ("istio_tcp_sockets_open", {"reporter": "destination"}, inbound),
            ("tulle_ztunnel_tunnels", {"reporter": "source"}, engine.pool.tunnels),
            (
                "tulle_ztunnel_tunnels",
                {"reporter": "destination"},
                sum(len(pod.tunnels) for pod in engine.pods.values()),
            ),
        ]
        if self._path is not None:
            gauges += self._path.gauges()
        return {"counters": counters, "gauges": gauges}

    def _count_bug(self) -> None:
        self.internal_errors += 1

    # -- draining --------------------------------------------------------------------------------

    def _drain(self, frame: Frame) -> None:
        """No new connections; open ones finish until the deadline."""
        deadline_s = float(frame.json().get("deadline_s", self.engine.config.drain_s))
        event(log, logging.INFO, "drain.started", deadline_s=deadline_s)
        for pod in self.engine.pods.values():
            pod.stop_listening()
            for tunnel in list(pod.tunnels):
                tunnel.drain()
        self.engine.pool.drain()
        drain = Drain(self)
        self.reactor.countdown(deadline_s, Drain.on_due).start(drain)
        drain.ticks.start(drain)

    def drained(self) -> None:
        """Nothing is open, or the deadline has come."""
        if self._drained:
            return
        self._drained = True
        for pod in list(self.engine.pods.values()):
            for book in (pod.outbound, pod.inbound):
                for connection in list(book):
                    self.reactor.serve(connection, connection.abort, RelayEnd.DRAINED)
            for tunnel in list(pod.tunnels):
                tunnel.close(TunnelEnd.DRAINED)
        event(log, logging.INFO, "drain.finished")
        self._send(Kind.DRAINED, {})


class Drain:
    """Waits for the last connection, at most until the deadline."""

    TICK_S: Final = 0.05

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self.ticks = worker.reactor.countdown(self.TICK_S, Drain.on_tick)

    def on_tick(self) -> None:
        if self._worker.engine.connections == 0:
            self._worker.drained()
        else:
            self.ticks.start(self)

    def on_due(self) -> None:
        self.ticks.stop(self)
        self._worker.drained()

    def on_bug(self) -> None:
        self._worker.drained()


def keep_buffers() -> None:
    """Let malloc keep the buffers of a bulk transfer.

    By default glibc gives every freed buffer of 128 KiB or more back to the kernel, and a bulk
    sender gets four of them each turn: page faults took two thirds of its time (measured: 3.0
    Gbit/s, without them 5.2 and more).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):  # glibc
        libc.mallopt(_M_MMAP_THRESHOLD, BUFFER_BYTES_KEPT_MAX)
        libc.mallopt(_M_TRIM_THRESHOLD, HEAP_BYTES_KEPT_MAX)


def main(arguments: list[str]) -> int:
    # Not argparse: it costs 0.4 MiB in each worker, for one option that only the supervisor gives.
    if len(arguments) != 2 or arguments[0] != "--fd" or not arguments[1].isdecimal():
        sys.stderr.write("usage: python -m ztunnel.worker --fd N (started by the supervisor)\n")
        return 2
    spare_collector()
    descriptor = int(arguments[1])
    os.set_inheritable(descriptor, False)
    channel = IpcSocket(socket.socket(fileno=descriptor))
    worker = Worker(channel, SystemClock(), sys.stderr.fileno())
    keep_buffers()
    shorten()
    worker.run()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
