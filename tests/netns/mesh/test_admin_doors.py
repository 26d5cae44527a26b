"""Doors of a node's processes: pods may fill none, and users of the host reach no admin page."""

from __future__ import annotations

import resource
import socket
import stat
import subprocess
import sys
import time
from contextlib import ExitStack, closing

import pytest

from agent.lab.netns import inside
from tests.support.lab.mesh_bed import Bed, soon

METRICS, READINESS, ADMIN = 15020, 15021, 15000
NOBODY = 65534
PROBE_S = 1.0  # a kubelet's
ADMIN_PAGES = (
    ("GET", "/config_dump"),
    ("GET", "/pools"),
    ("GET", "/logging"),
    ("POST", "/logging?level=debug"),
    ("POST", "/certificates/rotate"),
    ("POST", "/quitquitquit"),
)
# A user of the host: asks for pages on a port, and tries sockets.
USER = """
import os, socket, sys
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for line in sys.stdin:
    kind, where, method, page = line.split()
    sock = socket.socket(socket.AF_UNIX if kind == "unix" else socket.AF_INET)
    sock.settimeout(5)
    try:
        sock.connect(where if kind == "unix" else ("127.0.0.1", int(where)))
        head = f"{method} {page} HTTP/1.1\\r\\nhost: localhost\\r\\ncontent-length: 0\\r\\n\\r\\n"
        sock.sendall(head.encode())
        print(sock.recv(12).decode()[9:])
    except PermissionError:
        print("EACCES")
    sock.close()
"""


def as_nobody(bed: Bed, *asked: tuple[str, str, str, str]) -> list[str]:
    node = bed.lab.store.load().node(bed.there)
    done = subprocess.run(
        ["ip", "netns", "exec", node.netns, sys.executable, "-c", USER],
        input="".join(" ".join(each) + "\n" for each in asked),
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()


def test_a_user_of_the_host_reads_metrics_and_readiness_and_no_more(bed: Bed) -> None:
    before = bed.workers(bed.there)
    pages = [("tcp", str(ADMIN), *page) for page in ADMIN_PAGES]
    assert as_nobody(bed, *pages) == ["403"] * len(pages)
    public = [("tcp", str(ADMIN), "GET", page) for page in ("/", "/metrics", "/healthz/ready")]
    assert as_nobody(bed, *public) == ["200"] * 3
    folder = bed.lab.run_dir / bed.there
    sockets = [*folder.glob("*.sock"), bed.lab.run_dir / "control" / "admin.sock"]
    assert len(sockets) == 5
    asked = [("unix", str(path), "GET", "/status") for path in sockets]
    assert as_nobody(bed, *asked) == ["EACCES"] * 5
    for path in sockets:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700, path.parent
    assert bed.workers(bed.there) == before
    assert all(level != "debug" for level in bed.ztunnel(bed.there, "/logging").values())


def probe(bed: Bed, port: int, page: str) -> tuple[bytes, float]:
    """(first bytes of the answer to the node's own request, seconds)"""
    with inside(bed.lab.store.load().node(bed.here).netns), closing(socket.socket()) as sock:
        started_s = time.monotonic()
        sock.settimeout(5)
        sock.connect(("127.0.0.1", port))
        sock.sendall(f"GET {page} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n".encode())
        return sock.recv(12), time.monotonic() - started_s


def flood(bed: Bed, pod: str, port: int, count: int, stack: ExitStack, send: bytes = b"") -> None:
    """Hold connections from a pod's address, and read nothing."""
    address = bed.lab.store.load().node(bed.here).address.v4
    for _ in range(count):
        with inside(bed.pod(pod).netns):
            sock = stack.enter_context(socket.socket())
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(5)
        try:
            sock.connect((address, port))
            sock.sendall(send)
        except OSError:
            pass  # displaced already


@pytest.fixture
def many_descriptors() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.usefixtures("many_descriptors")
@pytest.mark.parametrize("pod", ["stranger", "client"])
@pytest.mark.parametrize(
    ("port", "page", "send", "count"),
    [
        (READINESS, "/healthz/ready", b"", 2000),
        (READINESS, "/healthz/ready", b"G", 300),
        (METRICS, "/metrics", b"", 300),
        (METRICS, "/metrics", b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n" * 200, 100),
    ],
    ids=["silent", "unfinished", "silent scrapers", "readers that stop"],
)
def test_a_pod_that_fills_a_port_keeps_no_probe_out(
    bed: Bed, pod: str, port: int, page: str, send: bytes, count: int
) -> None:
    with ExitStack() as stack:
        flood(bed, pod, port, count, stack, send)
        for _ in range(5):
            answer, took_s = probe(bed, port, page)
            assert answer == b"HTTP/1.1 200"
            assert took_s < PROBE_S
    soon(lambda: probe(bed, port, page)[0] == b"HTTP/1.1 200", "the port after the flood")
