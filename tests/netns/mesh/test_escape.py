"""A captured pod tries to get out, in or around; both families. The judge is the link itself: no
TCP packet of a pod may cross it that is not the tunnel's."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.lab import changes
from agent.lab.netns import inside
from tests.support.lab.mesh_bed import (
    FAMILIES,
    MARKER,
    PORT,
    Bed,
    Reply,
    Wire,
    mesh_bed,
    soon,
    speak,
)

IPPROTO_MPTCP = 262
SO_SHOW_CLIENT = 0x7475
GATEWAY = "fe80::1"
SOURCE_PORT = 41000  # below the ephemeral range's usual middle: nobody else is likely to have it
OWN_PORTS = {15008, 15012}  # the tunnel's, and that of the control plane


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("escape")) as made:
        yield made


@contextlib.contextmanager
def sealed(bed: Bed) -> Iterator[Wire]:
    """Assert that both links carry no TCP packet but the mesh's own, whatever the body does."""
    with bed.wire(bed.here) as near, bed.wire(bed.there) as far:
        yield near
        for wire in (near, far):
            assert wire.counts().marker_packets == 0
            assert foreign(wire) == []


def foreign(wire: Wire) -> list[tuple[int, int]]:
    """Ports of TCP packets, with or without payload, that are not the mesh's."""
    found = []
    for frame in wire.frames:
        v4 = frame[12:14] == b"\x08\x00" and frame[23] == socket.IPPROTO_TCP
        v6 = frame[12:14] == b"\x86\xdd" and frame[20] == socket.IPPROTO_TCP
        if v4 or v6:
            start = 14 + (frame[14] & 15) * 4 if v4 else 54
            ports = tuple(int.from_bytes(frame[start + at : start + at + 2]) for at in (0, 2))
            if not OWN_PORTS & set(ports):
                found.append((ports[0], ports[1]))
    return found


# Each prepares a socket of the pod, or connects it in a way of its own, and may be refused.
Trick = Callable[[Bed, socket.socket, tuple[str, int]], None]


def mark(number: int) -> Trick:
    def set_mark(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, number)
        sock.connect(target)

    return set_mark


def device(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
    sock.connect(target)


def bound(host: str, port: int) -> Trick:
    """'' is the pod's own address, a pod's name that pod's."""

    def bind(bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
        family = 4 if sock.family == socket.AF_INET else 6
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host:
            sock.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
            if family == 6:
                sock.setsockopt(socket.IPPROTO_IPV6, 75, 1)  # IPV6_TRANSPARENT
        sock.bind((bed.address(host or "client", family), port))
        sock.connect(target)

    return bind


def loopback_source(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    sock.bind(("127.0.0.1" if sock.family == socket.AF_INET else "::1", 0))
    sock.connect(target)


def fast_open(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    sock.settimeout(None)  # the kernel's own time limit: Python's would make it non-blocking
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, (3).to_bytes(8, "little") + bytes(8))
    sock.sendto(f"{MARKER}\n".encode(), socket.MSG_FASTOPEN, target)
    assert sock.recv(1000).endswith(b"\n")


def fast_open_connect(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    sock.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
    sock.connect(target)


def at_once(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    sock.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        sock.connect(target)
    sock.settimeout(8)


def twice(bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    """After a connect() that passes, and was refused, on the same socket."""
    family = 4 if sock.family == socket.AF_INET else 6
    with pytest.raises(ConnectionRefusedError):
        sock.connect((bed.address("client", family), 1))
    with contextlib.suppress(ConnectionAbortedError):  # says so once, then may be used again
        sock.connect(target)
    sock.connect(target)


def repaired(_bed: Bed, sock: socket.socket, target: tuple[str, int]) -> None:
    """Established by decree, without a handshake; then a normal socket again."""
    sock.setsockopt(socket.IPPROTO_TCP, 19, 1)  # TCP_REPAIR
    sock.connect(target)
    sock.setsockopt(socket.IPPROTO_TCP, 19, 0)


TRICKS: dict[str, Trick] = {
    "mark 1337": mark(1337),
    "mark 0x539 with bits": mark(0x539 | 0x70000000),
    "device": device,
    "own address and port": bound("", SOURCE_PORT),
    "another pod's address": bound("stranger", 0),
    "loopback source": loopback_source,
    "fast open": fast_open,
    "fast open at connect": fast_open_connect,
    "not blocking": at_once,
    "connected before": twice,
    "repair": repaired,
}
CUT = {"another pod's address", "loopback source", "repair"}  # these need not work, only not leak


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", TRICKS)
def test_no_socket_option_leads_past_the_tunnel(bed: Bed, name: str, family: int) -> None:
    with sealed(bed), bed.socket("client", family) as sock:
        sock.settimeout(1)
        shown = ""
        with contextlib.suppress(OSError):
            TRICKS[name](bed, sock, (bed.address("server", family), PORT))
            shown = speak(sock)
        assert name in CUT or shown.split()[0] == bed.address("client", family)
    assert bed.yes(("client", "server", PORT))


@pytest.mark.parametrize("family", FAMILIES)
def test_multipath_tcp_is_captured_or_refused(bed: Bed, family: int) -> None:
    with sealed(bed):
        try:
            sock = bed.socket("client", family, IPPROTO_MPTCP)
        except OSError:
            return  # this kernel has none
        with sock:
            sock.connect((bed.address("server", family), PORT))
            assert speak(sock).split()[0] == bed.address("client", family)


@pytest.mark.parametrize("target", ["server", "near", "stranger"])
def test_a_v4_mapped_socket_is_captured_as_v4(bed: Bed, target: str) -> None:
    with contextlib.ExitStack() as stack:
        if target != "stranger":
            stack.enter_context(sealed(bed))
        sock = stack.enter_context(bed.socket("client", 6))
        mapped = f"::ffff:{bed.address(target, 4)}"
        sock.connect((mapped, PORT))
        assert sock.getpeername()[:2] == (mapped, PORT)
        assert speak(sock).split()[0] == bed.address("client", 4)


def direct(bed: Bed) -> set[bool]:
    """The agent's word for each pod of the mesh here: may it be connected without the ztunnel?"""
    pods = bed.agent(bed.here)["pods"]
    return {each["direct"] for each in pods if each["namespace"] == "mesh"}


@contextlib.contextmanager
def always_tunnel(bed: Bed) -> Iterator[None]:
    changes.label(bed.lab, "Namespace", "", "mesh", ["tulle.io/path=tunnel"])
    try:
        soon(lambda: direct(bed) == {False}, "the namespace keeps to the tunnel")
        yield
    finally:
        changes.label(bed.lab, "Namespace", "", "mesh", ["tulle.io/path-"])
        soon(lambda: direct(bed) == {True}, "the namespace goes direct again")


@pytest.mark.parametrize("family", FAMILIES)
def test_what_goes_direct_stays_on_the_node(bed: Bed, family: int) -> None:
    with sealed(bed):
        for _ in range(5):
            assert bed.reach("client", "near", family) is Reply.ANSWERED


@pytest.mark.parametrize("family", FAMILIES)
def test_pods_of_one_node_are_sealed_from_each_other_on_demand(bed: Bed, family: int) -> None:
    with (
        always_tunnel(bed),
        bed.cable("near") as near,
        bed.cable("client") as own,
        bed.cable("stranger") as open_one,
    ):
        assert bed.reach("client", "near", family) is Reply.ANSWERED
        for wire in (near, own):
            assert wire.counts().marker_packets == 0
            assert foreign(wire) == []
            assert wire.seen.hbone_payload_packets > 0
        assert bed.reach("stranger", "near", family) is Reply.ANSWERED
        assert open_one.counts().marker_packets > 0


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["client", "stranger"])
def test_app_and_server_see_each_other_as_without_a_mesh(bed: Bed, name: str, family: int) -> None:
    for target in ("server", "near"):
        with bed.connect(name, target, family) as sock:
            assert sock.getpeername()[:2] == (bed.address(target, family), PORT)
            own = sock.getsockname()[:2]
            assert own[0] == bed.address(name, family)
            assert speak(sock) == f"{own[0]} {own[1]}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_pod_cannot_tell_the_kernel_another_client_address(bed: Bed, family: int) -> None:
    claim = bytes(10) + b"\xff\xff\x01\x02\x03\x04" + (99).to_bytes(2) + bytes(6)
    for name, target in (("client", "server"), ("stranger", "server"), ("client", "client")):
        with bed.socket(name, family) as sock:
            with pytest.raises(OSError) as refused:
                sock.setsockopt(socket.SOL_IP, SO_SHOW_CLIENT, claim)
            assert refused.value.errno in (errno.ENOPROTOOPT, errno.EPERM, errno.EINVAL)
            if target != name:
                sock.connect((bed.address(target, family), PORT))
                assert speak(sock).split()[0] == bed.address(name, family)


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_pass_untouched(bed: Bed, family: int) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with inside(bed.pod("client").netns):
        sock = socket.socket(kind, socket.SOCK_DGRAM)
    with sock:
        sock.settimeout(5)
        target = (bed.address("server", family), PORT)
        sock.sendto(b"one", target)
        assert bed.address("client", family).encode() in sock.recv(100)
        sock.connect(target)
        sock.send(b"two")
        assert sock.recv(100).endswith(b" two")


def test_the_gateway_is_no_way_out(bed: Bed) -> None:
    """Its link-local address would be reached in the clear; the node's own is outside the mesh."""
    with sealed(bed), bed.socket("client", 6) as sock:
        with inside(bed.pod("client").netns):
            index = socket.if_nametoindex("eth0")
        with pytest.raises(OSError, match=r"unreachable|not permitted"):
            sock.connect((GATEWAY, PORT, 0, index))
    node = bed.lab.store.load().node(bed.here).address
    for family, host in ((4, node.v4), (6, node.v6)):
        with sealed(bed), bed.socket("client", family) as sock:
            # The ztunnel's admin page is on the node's loopback only.
            assert not answer(sock, (host, 15000), KNOCKS["http"])


def listening(bed: Bed, pod: str) -> set[int]:
    """The ports on which somebody listens in a pod: the tunnel's and the app's."""
    found = set()
    with inside(bed.pod(pod).netns):
        for table in ("tcp", "tcp6"):
            for line in Path(f"/proc/thread-self/net/{table}").read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A":
                    found.add(int(fields[1].rpartition(":")[2], 16))
    return found


KNOCKS = {
    "garbage": b"\x00\xff" * 600,
    "http": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "http2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
    "a line": f"{MARKER}\n".encode(),
}


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("knock", KNOCKS)
def test_the_tunnels_own_ports_answer_nobody_in_the_pod(bed: Bed, knock: str, family: int) -> None:
    ports = (listening(bed, "client") | {15001, 15006, 15008}) - {PORT}
    assert len(ports) >= 3
    own = [bed.address("client", family), "127.0.0.1" if family == 4 else "::1"]
    with sealed(bed):
        for host in own:
            for port in ports:
                with bed.socket("client", family) as sock:
                    assert not answer(sock, (host, port), KNOCKS[knock])
    assert bed.yes(("client", "server", PORT), ("client", "near", PORT))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("knock", KNOCKS)
def test_the_tunnels_ports_of_another_pod_answer_nobody(bed: Bed, knock: str, family: int) -> None:
    for target in ("server", "near"):
        ports = (listening(bed, target) | {15000, 15001, 15006, 15008}) - {PORT, 9090}
        for name in ("client", "stranger"):
            for port in ports:
                with bed.socket(name, family) as sock:
                    assert not answer(sock, (bed.address(target, family), port), KNOCKS[knock])
    assert bed.yes(("client", "server", PORT), ("stranger", "server", PORT))


def answer(sock: socket.socket, target: tuple[str, int], data: bytes) -> bool:
    """True when an application's answer comes back; a TLS alert does not count."""
    try:
        sock.connect(target)
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        back = b""
        while piece := sock.recv(65536):
            back += piece
    except TimeoutError:
        pytest.fail(f"{target} holds the connection")
    except OSError:
        return False
    return bool(back) and back[:1] != b"\x15"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["client", "stranger"])
def test_tls_without_a_certificate_gets_nothing(bed: Bed, name: str, family: int) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    hosts = [bed.address("server", family), bed.address("near", family)]
    if name == "client":
        hosts.append("127.0.0.1" if family == 4 else "::1")
    for host in hosts:
        with bed.socket(name, family) as sock:
            assert not shakes_hands(sock, context, (host, 15008))
    assert bed.yes(("client", "server", PORT))


def shakes_hands(sock: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> bool:
    """In TLS 1.3 a client hears only at its first read that its certificate was missed."""
    try:
        sock.connect(target)
        with context.wrap_socket(sock) as tls:
            tls.sendall(KNOCKS["http2"])
            return bool(tls.recv(1))
    except TimeoutError:
        pytest.fail(f"{target} holds the connection")
    except OSError:
        return False


@pytest.mark.parametrize("family", FAMILIES)
def test_an_app_that_joins_the_tunnels_port_gets_nothing(bed: Bed, family: int) -> None:
    """Root in a pod has the tunnel's uid, so it may join the SO_REUSEPORT groups there."""
    kind, host = (socket.AF_INET, "0.0.0.0") if family == 4 else (socket.AF_INET6, "::")
    with contextlib.ExitStack() as stack, sealed(bed):
        for port in listening(bed, "client") | {15001, 15006, 15008}:
            with inside(bed.pod("client").netns):
                sock = stack.enter_context(socket.socket(kind))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            with contextlib.suppress(OSError):
                sock.bind((host, port))
                sock.listen()
        for _ in range(8):
            assert bed.reach("other", "server", family) is Reply.ANSWERED
            assert bed.reach("client", "server", family) is Reply.ANSWERED
    assert bed.yes(("client", "server", PORT))
