"""Two nodes' engines on loopback, in one reactor's thread, with real sockets between them.

Where the kernel would say what an app dialled, the bed does: every destination gets an outbound
listener of its own. Everything else is the product's code.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from control.kit.clock import SystemClock
from control.model.address import Endpoint, parse_address
from control.model.identity import SpiffeId
from control.model.policy import Policy
from control.model.workload import HBONE_PORT, TunnelProtocol, Workload
from tests.support.certificates import Authority, make_authority
from tests.support.engine.tunnel_mesh import mesh_entries, mesh_state
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.listeners import Pauses, listen
from ztunnel.connections.pod import Pod
from ztunnel.connections.recheck import Recheck
from ztunnel.connections.sockaddr import Original, endpoint_of
from ztunnel.loop.reactor import READABLE, Reactor
from ztunnel.mesh.balance import Hint
from ztunnel.mesh.entries import Entry
from ztunnel.telemetry.access_log import JSON, AccessLog
from ztunnel.transport.dial import Dialer
from ztunnel.transport.tls import Material
from ztunnel.worker.bugs import Bugs

Result = TypeVar("Result")
DEADLINE_S = 20.0
CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")
_numbers = itertools.count(1)


def loopback() -> str:
    """An address of 127/8 that no other test of this machine uses right now."""
    number = next(_numbers)
    return f"127.{64 + os.getpid() % 128}.{number // 250 + 1}.{number % 250 + 1}"


def eventually(holds: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < end, f"never happened: {what}"
        time.sleep(0.005)


class Loop:
    """A reactor in a thread, as a worker process has it (its scratch buffers allow only one)."""

    def __init__(self) -> None:
        self._bugs = Bugs()
        self.reactor = Reactor(self._bugs.report)
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._wake, self._woken = socket.socketpair()
        self.reactor.watch(self._woken.fileno(), self, READABLE)
        self._thread = threading.Thread(target=self._run, name="reactor", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while self.reactor.running:
            self.reactor.turn(5.0)

    def on_ready(self, events: int) -> None:
        self._woken.recv(1)
        self._calls.get()()

    def on_bug(self) -> None:
        raise AssertionError("unreachable: calls catch everything")

    def call(self, action: Callable[[], Result]) -> Result:
        """Call `function` in the reactor's thread."""
        done: queue.SimpleQueue[tuple[Result | None, BaseException | None]] = queue.SimpleQueue()

        def run() -> None:
            try:
                done.put((action(), None))
            except BaseException as exc:
                done.put((None, exc))

        self._calls.put(run)
        self._wake.send(b"x")
        result, error = done.get(timeout=DEADLINE_S)
        if error is not None:
            raise error
        return result  # type: ignore[return-value]  # None only together with an error

    def close(self) -> None:
        self.call(self.reactor.stop)
        self._thread.join(DEADLINE_S)
        self.reactor.close()
        self._wake.close()
        self._woken.close()
        assert not self._bugs.count, "a connection's handling raised; see the log"


class Node:
    """One engine and its pod."""

    def __init__(self, loop: Loop, name: str, identity: SpiffeId, *values: Workload) -> None:
        self.name = name
        self.loop = loop
        self.call = loop.call
        self.reactor = loop.reactor
        self.destinations: dict[int, Endpoint] = {}
        self.asked: list[SpiffeId] = []
        self.has_signer = True  # one that takes its time; else one that says no
        self.lines: list[str] = []  # the access log, as JSON
        self.engine: Engine = loop.call(lambda: self._make(values))
        self.pod = Pod(name, name, identity.namespace, identity.service_account, -1)
        self.engine.pods[name] = self.pod
        self.pauses = Pauses(self.engine)
        self.recheck = Recheck(self.engine)

    def _make(self, values: tuple[Workload, ...]) -> Engine:
        return Engine(
            self.reactor,
            SystemClock(),
            mesh_state(*values),
            EngineConfig(),
            dialer=Dialer(self.reactor),
            access_log=AccessLog(SystemClock(), self.lines.append, JSON),
            ask_certificate=self._ask,
            original_destination=self._original,
        )

    def _ask(self, who: SpiffeId, _waiting: bool) -> None:
        self.asked.append(who)
        if not self.has_signer:
            self.engine.credentials.fail(who)

    def _original(self, sock: socket.socket) -> Original | None:
        destination = self.destinations.get(endpoint_of(sock.getsockname()).port)
        return None if destination is None else (destination, Hint.NONE)

    def entry(self, destination: Endpoint) -> tuple[str, int]:
        """The address at which a client reaches `destination` through this node."""
        listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
        self.destinations[listener.getsockname()[1]] = destination
        where: tuple[str, int] = listener.getsockname()
        self.call(lambda: listen(self.engine, self.pauses, self.pod, listener, None, None))
        return where

    def certify(self, identity: SpiffeId, material: Material) -> None:
        self.call(lambda: self.engine.credentials.put(identity, material))

    def access(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.lines]

    def apply(self, entries: list[Entry]) -> None:
        def run() -> None:
            changed = self.engine.state.apply(entries)
            for uid in changed.moved:
                self.engine.pool.retire(uid)
            self.recheck.after(changed)

        self.call(run)

    def close(self) -> None:
        self.call(lambda: self.engine.remove_pod(self.name))


class Bed:
    """A client node, a server node, and one authority."""

    def __init__(self, address: str = "") -> None:
        self.address = address or loopback()
        self.authority: Authority = make_authority()
        packed = parse_address(self.address)
        self.client_workload = Workload(
            uid="client", name="client", namespace="demo", service_account="client"
        )
        self.server_workload = Workload(
            uid="server",
            name="server",
            namespace="demo",
            service_account="server",
            addresses=(packed,),
            tunnel_protocol=TunnelProtocol.HBONE,
        )
        values = (self.client_workload, self.server_workload)
        self.loop = Loop()
        self.client = Node(self.loop, "client", CLIENT, *values)
        self.server = Node(self.loop, "server", SERVER, *values)
        self.client.certify(CLIENT, self.authority.issue(str(CLIENT)))
        self.server.certify(SERVER, self.authority.issue(str(SERVER)))

    def serve_hbone(self) -> None:
        listener = listener_at(self.address, HBONE_PORT)
        node = self.server
        node.call(lambda: listen(node.engine, node.pauses, node.pod, None, None, listener))

    def serve_plaintext(self) -> tuple[str, int]:
        """A listener that stands for one app port; the kernel would bring the real port here."""
        listener = listener_at(self.address, 0)
        where: tuple[str, int] = listener.getsockname()[:2]
        node = self.server
        node.call(lambda: listen(node.engine, node.pauses, node.pod, None, listener, None))
        return where

    def endpoint(self, port: int) -> Endpoint:
        return Endpoint(parse_address(self.address), port)

    def policies(self, *policies: Policy) -> None:
        entries = mesh_entries(self.client_workload, self.server_workload, policies=policies)
        self.server.apply(entries)

    def close(self) -> None:
        self.client.close()
        self.server.close()
        self.loop.close()


@contextmanager
def bed(address: str = "") -> Iterator[Bed]:
    made = Bed(address)
    try:
        made.serve_hbone()
        yield made
    finally:
        made.close()


def listener_at(address: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.create_server((address, port), family=family, backlog=1024)


class App:
    """A server in a pod: `serve` is called with each connection, in a thread of its own."""

    def __init__(self, address: str, serve: Callable[[socket.socket], None]) -> None:
        self._listener = listener_at(address, 0)
        self.port: int = self._listener.getsockname()[1]
        self._serve = serve
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            threading.Thread(target=self._run, args=(connection,), daemon=True).start()

    def _run(self, connection: socket.socket) -> None:
        with connection:
            try:
                self._serve(connection)
            except OSError:
                pass

    def close(self) -> None:
        if self._listener.fileno() >= 0:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()


def echo(connection: socket.socket) -> None:
    while data := connection.recv(1 << 16):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def dial(where: tuple[str, int]) -> socket.socket:
    return socket.create_connection(where, timeout=DEADLINE_S)


def refused(where: tuple[str, int]) -> bool:
    """Nobody listens there."""
    try:
        dial(where).close()
    except ConnectionRefusedError:
        return True
    return False


def is_reset(where: tuple[str, int]) -> bool:
    """Does a connection there end in a reset (perhaps before connect() has returned)?"""
    try:
        with dial(where) as sock:
            return bool(sock.recv(1)) and False
    except ConnectionResetError:
        return True


def read_all(sock: socket.socket) -> bytes:
    pieces = []
    while data := sock.recv(1 << 18):
        pieces.append(data)
    return b"".join(pieces)


def read_exactly(sock: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        piece = sock.recv(count - len(data))
        if not piece:
            break
        data += piece
    return data


def transfer(where: tuple[str, int], mebibytes: int) -> bool:
    """Send to an echo, half-close, and read everything back; True when the hashes are equal."""
    block = os.urandom(1 << 20)
    sent, received = hashlib.sha256(), hashlib.sha256()
    with dial(where) as sock:

        def send() -> None:
            for _ in range(mebibytes):
                sock.sendall(block)
                sent.update(block)
            sock.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        while data := sock.recv(1 << 18):
            received.update(data)
        sender.join()
    return sent.digest() == received.digest()
