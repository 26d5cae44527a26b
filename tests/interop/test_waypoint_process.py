"""`tulle-waypoint` with the real Envoy: certificate, resources, restarts, drain, over one day."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from control.model.identity import parse_spiffe_id
from control.server.envoy.descriptors import encode
from control.wire.envoy_bootstrap import CERTIFICATE_SECRET, SDS_CLUSTER
from control.wire.types import LISTENER_TYPE
from control.wire.x509 import spiffe_ids
from tests.support.peers.waypoint_control import WaypointControl, serving
from tests.support.processes.daemon import DEADLINE_S
from tests.support.processes.waypoint import Waypoint, running_waypoint

IDENTITY = parse_spiffe_id("spiffe://cluster.local/ns/shop/sa/waypoint")
_TYPE = "type.googleapis.com/envoy.extensions"


def listener(port: int, body: str) -> bytes:
    """HTTP over TLS with the certificate that SDS has; every request has this answer."""
    service = {"envoy_grpc": {"cluster_name": SDS_CLUSTER}}
    source = {"api_type": "DELTA_GRPC", "transport_api_version": "V3", "grpc_services": [service]}
    sds = {"api_config_source": source, "resource_api_version": "V3"}
    secret = {"name": CERTIFICATE_SECRET, "sds_config": sds}
    tls = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.DownstreamTlsContext",
        "common_tls_context": {"tls_certificate_sds_secret_configs": [secret]},
    }
    answer = {"status": 200, "body": {"inline_string": body}}
    routes = [{"match": {"prefix": "/"}, "direct_response": answer}]
    router = {"@type": f"{_TYPE}.filters.http.router.v3.Router"}
    manager = {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "web",
        "http_filters": [{"name": "router", "typed_config": router}],
        "route_config": {"virtual_hosts": [{"name": "v", "domains": ["*"], "routes": routes}]},
    }
    chain = {
        "filters": [{"name": "http", "typed_config": manager}],
        "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
    }
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    value = {"name": f"web-{port}", "address": address, "filter_chains": [chain]}
    return encode(LISTENER_TYPE, value)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._port = port

    async def connect(self) -> Client:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        opened = await asyncio.open_connection("127.0.0.1", self._port, ssl=context)
        self._reader, self._writer = opened
        return self

    @property
    def certificate(self) -> x509.Certificate:
        der = self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        return x509.load_der_x509_certificate(der)

    async def get(self) -> tuple[str, str]:
        """Head in lower case, and body."""
        self._writer.write(b"GET / HTTP/1.1\r\nhost: web\r\n\r\n")
        head = (await self._reader.readuntil(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].partition("\r")[0])
        return head, (await self._reader.readexactly(length)).decode()

    def close(self) -> None:
        self._writer.transport.abort()


async def until(probe: Callable[[], Awaitable[Any]]) -> Any:
    """The first true answer; a refused connection is none."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                if found := await probe():
                    return found
            except (OSError, asyncio.IncompleteReadError):
                pass
            await asyncio.sleep(0.02)


def run(folder: Path, test: Callable[[WaypointControl, Waypoint, int], Awaitable[None]]) -> None:
    async def whole() -> None:
        port = free_port()
        control = WaypointControl()
        control.put(LISTENER_TYPE, f"web-{port}", listener(port, "one"))
        async with serving(control), running_waypoint(folder, control) as waypoint:
            await waypoint.ready()
            await test(control, waypoint, port)

    asyncio.run(whole())


def test_it_serves_as_the_gateways_account_and_a_renewal_breaks_nothing(tmp_path: Path) -> None:
    async def test(control: WaypointControl, waypoint: Waypoint, port: int) -> None:
        old = await Client(port).connect()
        assert spiffe_ids(old.certificate) == (IDENTITY,)
        assert control.nodes == ["waypoint~shop~waypoint~waypoint-1"]
        assert control.tokens == ["Bearer a-token"]
        assert (await waypoint.get("/certificates/rotate", "POST"))[0] == 200

        async def renewed() -> bool:
            new = await Client(port).connect()
            number = new.certificate.serial_number
            new.close()
            return bool(number != old.certificate.serial_number)

        await until(renewed)
        assert (await old.get())[1] == "one"
        old.close()
        text = (await waypoint.get("/metrics"))[1].decode()
        assert "envoy_listener_manager_lds_update_success" in text
        assert "tulle_waypoint_control_connected 1.0" in text

    run(tmp_path, test)


def test_without_a_control_plane_it_serves_on_and_then_hears_what_changed(tmp_path: Path) -> None:
    async def whole() -> None:
        port, later = free_port(), free_port()
        control = WaypointControl()
        control.put(LISTENER_TYPE, f"web-{port}", listener(port, "one"))
        async with serving(control):
            running = running_waypoint(tmp_path, control)
            waypoint = await running.__aenter__()
            await waypoint.ready()
        try:
            await waypoint.logged("xds.disconnected")
            client = await Client(port).connect()
            assert (await client.get())[1] == "one"
            assert (await waypoint.get("/healthz/ready"))[0] == 200
            (tmp_path / "token").write_text("another-token")
            control.put(LISTENER_TYPE, f"web-{later}", listener(later, "two"))
            async with serving(control, control.port):
                new = await until(lambda: Client(later).connect())
                assert (await new.get())[1] == "two"
                assert (await client.get())[1] == "one", "nothing of it was touched"
                assert control.tokens[-1] == "Bearer another-token"
                new.close()
            client.close()
        finally:
            await running.__aexit__(None, None, None)

    asyncio.run(whole())


def test_an_envoy_that_dies_is_started_again(tmp_path: Path) -> None:
    async def test(control: WaypointControl, waypoint: Waypoint, port: int) -> None:
        started = await waypoint.logged("envoy.started .*starts=1")
        os.kill(int(started.partition("pid=")[2].split()[0]), signal.SIGSEGV)
        assert "SIGSEGV" in await waypoint.logged("envoy.ended")
        await waypoint.logged("envoy.started .*starts=2")
        await waypoint.ready()
        client = await until(lambda: Client(port).connect())
        assert (await client.get())[1] == "one"
        client.close()

    run(tmp_path, test)


def test_a_drain_asks_its_peers_to_leave_and_ends_with_the_last_of_them(tmp_path: Path) -> None:
    async def test(control: WaypointControl, waypoint: Waypoint, port: int) -> None:
        old = await Client(port).connect()
        assert "connection: close" not in (await old.get())[0]
        waypoint.process.send_signal(signal.SIGTERM)
        await waypoint.logged("drain.started")
        assert (await waypoint.get("/healthz/ready"))[0] == 500
        new = await Client(port).connect()  # who has not heard of it yet
        assert (await new.get())[1] == "one"

        async def told() -> bool:
            return "connection: close" in (await old.get())[0]

        await until(told)
        old.close()
        new.close()
        assert await waypoint.end() == 0
        assert "left_open=0" in await waypoint.logged("drain.ended")

    run(tmp_path, test)


def test_one_that_cannot_be_told_apart_is_not_ready(tmp_path: Path) -> None:
    """Without a certificate Envoy does not even start."""

    async def whole() -> None:
        control = WaypointControl(port=free_port())  # nobody there
        async with running_waypoint(tmp_path, control) as waypoint:
            await waypoint.logged("certificate.failed")
            status, body = await waypoint.get("/healthz/ready")
            assert (status, body) == (500, b"not ready, pending: certificate, envoy\n")
            assert not any("envoy.started" in line for line in waypoint.lines)

    asyncio.run(whole())


@pytest.fixture(autouse=True)
def nothing_is_left() -> Any:
    before = set(Path("/run").glob("tulle-waypoint-*"))
    yield
    assert set(Path("/run").glob("tulle-waypoint-*")) <= before
