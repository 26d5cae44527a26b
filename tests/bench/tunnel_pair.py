"""One end of a tunnel pair as a process, for measurements: the product's engine, nothing replaced.

    tunnel_pair.py in  --hbone ADDRESS:PORT --certs DIR
    tunnel_pair.py out --entry ADDRESS:PORT=DESTINATION --hbone ADDRESS:PORT --certs DIR
    tunnel_pair.py relay --entry ADDRESS:PORT=DESTINATION
    tunnel_pair.py --selftest

`out` takes plain TCP on each entry and sends it through the tunnel to the entry's destination
(where the kernel would say so in a real node); `in` is the other end; `relay` is the same engine
passing bytes on without a tunnel. DIR has ca.pem, client.pem/.key and server.pem/.key.
"""

from __future__ import annotations

import argparse
import contextlib
import cProfile
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from cryptography import x509

from control.kit.clock import SystemClock
from control.kit.log import setup
from control.kit.memory import settle
from control.kit.sink import LineSink, never_waiting
from control.model.address import Endpoint, format_address, parse_endpoint
from control.model.identity import SpiffeId
from control.model.workload import GatewayAddress, NetworkAddress, TunnelProtocol, Workload
from control.wire.x509 import spiffe_ids
from tests.support.certificates import make_authority
from tests.support.engine.tunnel_mesh import mesh_state
from ztunnel.connections.engine import Engine, EngineConfig
from ztunnel.connections.listeners import Pauses, listen
from ztunnel.connections.pod import Pod
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.spin import Spin
from ztunnel.loop.timeslice import shorten
from ztunnel.mesh.balance import Hint
from ztunnel.telemetry.access_log import TEXT, AccessLog
from ztunnel.telemetry.turn_writer import TurnWriter
from ztunnel.transport.dial import Dialer
from ztunnel.transport.tls import Material
from ztunnel.worker.bugs import Bugs
from ztunnel.worker.process import keep_buffers

CLIENT = SpiffeId("cluster.local", "demo", "client")
SERVER = SpiffeId("cluster.local", "demo", "server")


def material(folder: pathlib.Path, name: str) -> Material:
    return Material(
        (folder / f"{name}.key").read_bytes(),
        ((folder / f"{name}.pem").read_bytes(),),
        (folder / "ca.pem").read_bytes(),
    )


def identity_in(found: Material) -> SpiffeId:
    return spiffe_ids(x509.load_pem_x509_certificates(found.chain_pem[0])[0])[0]


def workload(name: str, address: Endpoint | None, identity: SpiffeId, **more: object) -> Workload:
    return Workload(
        uid=f"//Pod/{identity.namespace}/{name}",
        name=name,
        namespace=identity.namespace,
        service_account=identity.service_account,
        trust_domain=identity.trust_domain,
        addresses=(address.address,) if address else (),
        **more,  # type: ignore[arg-type]  # fields of Workload, given by name
    )


def open_listener(at: Endpoint) -> socket.socket:
    family = socket.AF_INET6 if len(at.address) == 16 else socket.AF_INET
    return socket.create_server((format_address(at.address), at.port), family=family, backlog=4096)


def run(options: argparse.Namespace) -> None:
    entries = dict(tuple(entry.split("=")) for entry in options.entry)
    destinations = {
        parse_endpoint(at).port: (parse_endpoint(to), Hint.NONE) for at, to in entries.items()
    }
    hbone = parse_endpoint(options.hbone) if options.hbone else None
    client, server = CLIENT, SERVER
    certificates: dict[SpiffeId, Material] = {}
    if options.certs:
        for name in ("client", "server"):
            found = material(options.certs, name)
            certificates[identity_in(found)] = found
        client, server = certificates
    state = mesh_state(workload("client", None, client))
    if hbone is not None:
        # A tunnel on another port than 15008 is what a waypoint may have: the server is its own.
        waypoint = GatewayAddress(NetworkAddress("", hbone.address), hbone.port)
        state = mesh_state(
            workload("client", None, client),
            workload(
                "server", hbone, server, waypoint=waypoint, tunnel_protocol=TunnelProtocol.HBONE
            ),
        )
    reactor = Reactor(Bugs().report, spin=Spin(options.spin_us))
    lines = TurnWriter(reactor, LineSink(never_waiting(sys.stderr.fileno())))
    clock = SystemClock()
    engine = Engine(
        reactor,
        clock,
        state,
        EngineConfig(),
        dialer=Dialer(reactor),
        access_log=AccessLog(clock, lines.put, TEXT) if options.access_log else None,
        ask_certificate=lambda _identity, _waiting: None,
        original_destination=lambda sock: destinations.get(sock.getsockname()[1]),
    )
    for identity, found in certificates.items():
        engine.credentials.put(identity, found)
    name = "server" if options.role == "in" else "client"
    whose = server if name == "server" else client
    pod = Pod("pod", name, whose.namespace, whose.service_account, -1)
    engine.pods["pod"] = pod
    if options.role == "in":
        assert hbone is not None
        listen(engine, Pauses(engine), pod, None, None, open_listener(hbone))
    else:
        for at in entries:
            listen(engine, Pauses(engine), pod, open_listener(parse_endpoint(at)), None, None)
    keep_buffers()
    shorten()
    settle()
    profile = cProfile.Profile() if options.profile else None
    signal.signal(signal.SIGTERM, lambda *_: reactor.stop())
    if profile is not None:
        profile.enable()
    while reactor.running:
        reactor.turn(0.5)
    if profile is not None:
        profile.disable()
        profile.dump_stats(options.profile)


# -- self test -----------------------------------------------------------------------------------


def write_certificates(folder: pathlib.Path) -> None:
    authority = make_authority()
    (folder / "ca.pem").write_bytes(authority.pem)
    for name, identity in (("client", CLIENT), ("server", SERVER)):
        made = authority.issue(str(identity))
        (folder / f"{name}.pem").write_bytes(made.chain_pem[0])
        (folder / f"{name}.key").write_bytes(made.key_pem)


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def answer(connection: socket.socket) -> None:
    body = b"x" * 1024
    with connection, contextlib.suppress(ConnectionError):  # a probe resets what it does not read
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connection.recv(65536):
            connection.sendall(body)


def serve(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection,), daemon=True).start()


def measure(port: int, seconds: float) -> float:
    with socket.create_connection(("127.0.0.1", port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        rounds = 0
        while time.monotonic() < end:
            sock.sendall(b"GET")
            have = 0
            while have < 1024:
                have += len(sock.recv(65536))
            rounds += 1
    return rounds / seconds


def wait_for(port: int, deadline_s: float = 10.0) -> None:
    end = time.monotonic() + deadline_s
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit(f"port {port} never opened")


def selftest() -> None:
    back, hbone, entry, plain = free_ports(4)
    backend = socket.create_server(("127.0.0.1", back))
    threading.Thread(target=serve, args=(backend,), daemon=True).start()
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        write_certificates(folder)
        to = f"=127.0.0.1:{back}"
        tunnel = ["--hbone", f"127.0.0.1:{hbone}", "--certs", name]
        commands = [
            ["in", *tunnel],
            ["out", "--entry", f"127.0.0.1:{entry}{to}", *tunnel],
            ["relay", "--entry", f"127.0.0.1:{plain}{to}"],
        ]
        started = [subprocess.Popen([sys.executable, __file__, *each]) for each in commands]
        try:
            for port in (entry, plain):
                wait_for(port)
            for name, port in (("direct", back), ("relay", plain), ("tunnel", entry)):
                measure(port, 0.3)
                rate = measure(port, 2.0)
                sys.stdout.write(f"{name}: {rate:.0f} requests/s on one connection\n")
        finally:
            for process in started:
                process.terminate()
            for process in started:
                process.wait(10)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("role", nargs="?", choices=("in", "out", "relay"))
    parser.add_argument("--entry", action="append", default=[])
    parser.add_argument("--hbone", default="")
    parser.add_argument("--certs", type=pathlib.Path)
    parser.add_argument("--access-log", action="store_true")
    parser.add_argument("--spin-us", type=int, default=50)  # as in the product
    parser.add_argument("--profile", default="")
    parser.add_argument("--selftest", action="store_true")
    options = parser.parse_args()
    setup("info", "text")
    if options.selftest:
        selftest()
    elif options.role is None:
        parser.error("a role, or --selftest")
    else:
        run(options)


if __name__ == "__main__":
    main()
