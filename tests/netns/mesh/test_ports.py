"""Ports of apps in a mesh of real processes: none run out, and a closed one looks closed."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path

import pytest

from agent.lab.netns import inside
from tests.support.lab.mesh_bed import FAMILIES, PORT, Bed, Reply, speak

SERVER_PORTS = 30
CONNECTIONS = 200


@pytest.mark.parametrize("family", FAMILIES)
def test_connections_do_not_run_out_of_the_servers_ports(bed: Bed, family: int) -> None:
    """Each end of one leaves its ports in TIME_WAIT for a minute."""
    path = Path("/proc/sys/net/ipv4/ip_local_port_range")
    with inside(bed.pod("server").netns):
        before = path.read_text()
        path.write_text(f"41000 {41000 + SERVER_PORTS - 1}")
    try:
        for _ in range(CONNECTIONS):
            assert bed.reach("client", "server", family) is Reply.ANSWERED
        with contextlib.ExitStack() as held:
            for _ in range(3 * SERVER_PORTS):
                sock = held.enter_context(bed.connect("client", "server", family))
                assert speak(sock)
    finally:
        with inside(bed.pod("server").netns):
            path.write_text(before)


@pytest.mark.parametrize("family", FAMILIES)
def test_one_source_port_reaches_two_nodes_at_once(bed: Bed, family: int) -> None:
    with contextlib.ExitStack() as held:
        for target in ("server", "near"):
            sock = held.enter_context(bed.socket("client", family))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("", 5000))
            sock.connect((bed.address(target, family), PORT))
            assert speak(sock)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["client", "stranger"])
def test_an_app_on_loopback_alone_is_no_hang_and_no_empty_answer(
    bed: Bed, name: str, family: int
) -> None:
    kind, host = (socket.AF_INET, "127.0.0.1") if family == 4 else (socket.AF_INET6, "::1")
    with inside(bed.pod("server").netns):
        app = socket.socket(kind)
    with app, bed.socket(name, family) as sock:
        app.bind((host, 7000))
        app.listen()
        assert end_of(sock, (bed.address("server", family), 7000)) == "refused"


@pytest.mark.parametrize("family", FAMILIES)
def test_ports_that_other_meshes_keep_are_an_apps_as_any(bed: Bed, family: int) -> None:
    """Remote, on the same node, and from outside the mesh."""
    kind, host = (socket.AF_INET, "0.0.0.0") if family == 4 else (socket.AF_INET6, "::")
    for target in ("server", "near"):
        for port in (15001, 15006, 15080, 40000):
            with inside(bed.pod(target).netns):
                app = socket.socket(kind)
            with app:
                app.settimeout(5)
                app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                app.bind((host, port))
                app.listen()
                for name in ("client", "stranger"):
                    with bed.connect(name, target, family, port), app.accept()[0] as taken:
                        assert taken.getpeername()[0] == bed.address(name, family)


def end_of(sock: socket.socket, target: tuple[str, int]) -> str:
    """The end as an app sees it: "refused" at connect(), or by a reset after it."""
    try:
        sock.connect(target)
        sock.sendall(b"hello\n")
        return f"answered {sock.recv(1)!r}"
    except TimeoutError:
        return "no end"
    except ConnectionError:
        return "refused"
