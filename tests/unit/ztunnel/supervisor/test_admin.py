"""Pages, metrics and dumps, called without a server."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from control.kit import http
from control.kit.http import HttpRequest, HttpResponse
from control.model.identity import SpiffeId
from control.model.policy import (
    Action,
    Clause,
    Match,
    Policy,
    PolicyScope,
    Rule,
    StringMatch,
    StringMatchKind,
)
from control.model.workload import GatewayAddress, NamespacedHostname, Port, WorkloadStatus
from tests.support.engine.meshes import key, mesh, pod, service, spiffe
from tests.support.processes.daemon import ask
from tests.support.virtual_time import run_virtual
from ztunnel.supervisor import admin, dump
from ztunnel.supervisor.admin import Doors, Pages, serve
from ztunnel.supervisor.metrics import Sample

OFF_PAGE = "off"


@dataclass
class Subject:
    waiting: list[str] = field(default_factory=list)
    rotated: list[SpiffeId | None] = field(default_factory=list)
    quits: int = 0
    figures: list[Sample] = field(default_factory=list)

    async def config_dump(self) -> dict[str, Any]:
        return {"workloads": []}

    async def pools(self) -> dict[str, Any]:
        return {}

    async def samples(self) -> list[Sample]:
        return self.figures

    def pending(self) -> list[str]:
        return self.waiting

    def set_log_level(self, spec: str) -> None:
        if spec == "loud":
            raise ValueError("not a log level: 'loud'")

    def rotate(self, identity: SpiffeId | None) -> list[SpiffeId]:
        self.rotated.append(identity)
        return [spiffe("web")] if identity in (None, spiffe("web")) else []

    def quit(self) -> None:
        self.quits += 1


def call(subject: Subject, method: str, path: str, **query: str) -> HttpResponse:
    async def whole() -> HttpResponse:
        handler = Pages(subject).admin()[method, path]
        return await handler(HttpRequest(method, path, query, {}))

    return asyncio.run(whole())


def test_readiness_names_what_is_missing() -> None:
    subject = Subject(["state manager", "proxy"])
    answer = call(subject, "GET", "/healthz/ready")
    assert answer.status == 500
    assert b"state manager, proxy" in answer.body
    assert call(subject, "GET", "/healthz/live").status == 200
    subject.waiting = []
    assert call(subject, "GET", "/healthz/ready").body == b"ready\n"


def test_wishes_are_passed_on_and_bad_ones_explained() -> None:
    subject = Subject()
    assert call(subject, "POST", "/certificates/rotate").status == 200
    assert call(subject, "POST", "/certificates/rotate", identity=str(spiffe("web"))).status == 200
    unknown = call(subject, "POST", "/certificates/rotate", identity=str(spiffe("x")))
    bad = call(subject, "POST", "/certificates/rotate", identity="web")
    loud = call(subject, "POST", "/logging", level="loud")
    assert [unknown.status, bad.status, loud.status] == [404, 400, 400]
    assert json.loads(loud.body)["reason"] == "bad_level"
    assert json.loads(bad.body)["reason"] == "bad_identity"
    assert len(subject.rotated) == 3
    call(subject, "POST", "/quitquitquit")
    assert subject.quits == 1
    assert ("GET", "/quitquitquit") not in Pages(subject).admin()


def test_the_loopback_port_has_no_admin_page(tmp_path: Path) -> None:
    subject = Subject()
    pages = Pages(subject)
    local = pages.local(tmp_path / "ztunnel.sock")
    assert local.keys() == pages.admin().keys(), "each says where it is"

    async def ask(method: str, path: str) -> HttpResponse:
        return await local[method, path](HttpRequest(method, path, {}, {}))

    for method, path in local:
        answer = asyncio.run(ask(method, path))
        if path in ("/", "/metrics", "/stats/prometheus", "/healthz/ready", "/healthz/live"):
            assert answer.status in (200, 500)
        else:
            assert answer.status == 403
            assert b"ztunnel.sock, or here with --admin-on-tcp" in answer.body
    assert (subject.quits, subject.rotated) == (0, [])


async def over_tcp(subject: Subject, folder: Path, head: str, *, admin_on_tcp: bool) -> bytes:
    """The status of an answer on the loopback port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    doors = Doors(folder / "z.sock", f"127.0.0.1:{port}", "off", "off", admin_on_tcp)
    async with serve(subject, doors), asyncio.timeout(5):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"{head}\r\ncontent-length: 0\r\n\r\n".encode())
        status = (await reader.readline()).split()[1]
        writer.close()
        return status


@pytest.mark.parametrize(
    ("head", "without", "with_flag"),
    [
        ("GET /config_dump HTTP/1.1\r\nhost: localhost:15000", b"403", b"200"),
        ("GET /config_dump HTTP/1.1\r\nhost: evil.example", b"403", b"403"),
        ("POST /quitquitquit HTTP/1.1\r\nhost: 127.0.0.1", b"403", b"200"),
        ("POST /quitquitquit HTTP/1.1\r\nhost: 127.0.0.1\r\norigin: null", b"403", b"403"),
        ("GET /metrics HTTP/1.1\r\nhost: node-7.example", b"200", b"403"),
        ("GET /healthz/ready HTTP/1.1\r\nhost: localhost", b"200", b"200"),
    ],
)
def test_istios_port_has_the_pages_with_a_flag_for_this_host(
    tmp_path: Path, head: str, without: bytes, with_flag: bytes
) -> None:
    subject = Subject()
    for admin_on_tcp, status in ((False, without), (True, with_flag)):
        found = asyncio.run(over_tcp(subject, tmp_path, head, admin_on_tcp=admin_on_tcp))
        assert found == status
    assert subject.quits == ("quit" in head and with_flag == b"200")


def test_the_metrics_page() -> None:
    opened = Sample("istio_tcp_connections_opened_total", 5, {"reporter": "source"})
    live = Sample("istio_tcp_sockets_open", 2, {"reporter": "source"})
    build = Sample("istio_build", 1, {"tag": 'a"b\n'})
    page = call(Subject(figures=[build, opened, live]), "GET", "/metrics")
    text = page.body.decode()
    assert 'istio_tcp_connections_opened_total{reporter="source"} 5.0' in text
    assert "# TYPE istio_tcp_sockets_open gauge" in text
    assert 'istio_build{tag="a\\"b\\n"} 1.0' in text
    assert "process_open_fds" in text


def test_a_dump_in_istios_words() -> None:
    gate = GatewayAddress(NamespacedHostname("shop", "gate"), 15008)
    web = pod("web", "10.0.0.2", "fd00::2", services={key("web"): [Port(80, 9090)]}, waypoint=gate)
    sick = pod("sick", services={key("web"): ()}, status=WorkloadStatus.UNHEALTHY)
    match = Match(
        principals=(StringMatch(StringMatchKind.PREFIX, "cluster.local/"),),
        namespaces=(StringMatch(StringMatchKind.PRESENCE),),
        destination_ports=(80,),
    )
    rule = Rule((Clause((match,)),))
    allow = Policy("p", "shop", PolicyScope.WORKLOAD_SELECTOR, Action.ALLOW, (rule,))
    state = mesh(web, sick, service("web", "10.1.0.1", "10.2.0.0/16"), allow)
    shown = {each["name"]: each for each in dump.workloads(state)}
    assert shown["web"]["workloadIps"] == ["10.0.0.2", "fd00::2"]
    assert shown["web"]["protocol"] == "HBONE"
    assert shown["web"]["waypoint"] == {
        "destination": "shop/gate",
        "hboneMtlsPort": 15008,
    }
    (its_service,) = dump.services(state)
    assert its_service["vips"] == ["/10.1.0.1", "/10.2.0.0/16"]
    assert its_service["ports"] == {"80": 8080}
    assert its_service["endpoints"][web.uid]["port"] == {"80": 9090}
    assert [each["healthy"] for each in its_service["endpoints"].values()] == [True, False]
    (its_policy,) = dump.policies(state)
    assert (its_policy["scope"], its_policy["action"]) == ("WorkloadSelector", "Allow")
    assert its_policy["rules"] == [
        [
            [
                {
                    "namespaces": [{"Presence": []}],
                    "principals": [{"Prefix": "cluster.local/"}],
                    "destinationPorts": [80],
                }
            ]
        ]
    ]
    json.dumps(shown)


def test_a_certificate_that_is_not_there_yet() -> None:
    assert dump.certificate(spiffe("web"), None, "")["state"] == "Initializing"
    assert "signing_failed" in dump.certificate(spiffe("web"), None, "signing_failed")["state"]


async def answers(path: Path, wanted: str) -> None:
    """Wait until the ztunnel behind this path is the one that waits for `wanted`."""
    async with asyncio.timeout(5):
        while True:
            try:
                _, body = await ask(str(path), "/healthz/ready", "GET")
            except OSError:
                body = b""
            if wanted.encode() in body:
                return
            await asyncio.sleep(0.005)


def test_the_newer_of_two_has_the_socket_and_the_older_one_has_it_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PAGES_EVERY_S", 0.01)
    path = tmp_path / "ztunnel.sock"
    doors = Doors(path, OFF_PAGE, OFF_PAGE, OFF_PAGE)

    async def scenario() -> None:
        async with serve(Subject(["older"]), doors):
            await answers(path, "older")
            async with serve(Subject(["newer"]), doors):
                await answers(path, "newer")
            await answers(path, "older")
            path.unlink()
            await answers(path, "older")

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_had_once_it_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PAGES_EVERY_S", 0.01)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            where = f"127.0.0.1:{taken.getsockname()[1]}"
            opening = serve(Subject(), Doors(tmp_path / "z", OFF_PAGE, OFF_PAGE, where))
            await opening.__aenter__()
        try:
            async with asyncio.timeout(5):
                while True:
                    try:
                        _, writer = await asyncio.open_connection(*where.split(":"))
                    except OSError:
                        await asyncio.sleep(0.005)
                    else:
                        writer.close()
                        return
        finally:
            await opening.__aexit__(None, None, None)

    asyncio.run(scenario())


def test_ports_are_given_up_for_a_newer_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admin, "PAGES_EVERY_S", 0.01)

    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as found:
            where = f"127.0.0.1:{found.getsockname()[1]}"
        doors = Doors(tmp_path / "z", OFF_PAGE, where, where)  # one of them can have it
        async with serve(Subject(["older"]), doors) as pages:
            host, _, port = where.rpartition(":")
            await answers(tmp_path / "z", "older")
            await pages.give_up_ports()
            socket.create_server((host, int(port))).close()
            await answers(tmp_path / "z", "older")

    asyncio.run(scenario())


def test_a_folder_that_is_not_to_be_written_to_is_told_more_and_more_rarely(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def ten_minutes() -> None:
        async with AsyncExitStack() as stack:
            server = http.HttpServer({}, door="admin_socket")
            with suppress(TimeoutError):
                async with asyncio.timeout(600):
                    await admin._keep_socket(stack, server, Path("/proc/absent/ztunnel.sock"))

    with caplog.at_level(logging.ERROR, "admin"):
        run_virtual(ten_minutes())
    assert 5 <= len(caplog.records) <= 20
