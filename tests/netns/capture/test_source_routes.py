"""A source route on a pod's socket, which would lead its segments past the ztunnel in the clear."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from tests.support.kernel.datapath import Bed
from tests.support.kernel.netns import Network, Pod

TARGETS = {4: ("10.77.0.9", 8080), 6: ("fd77::9", 8080)}
HOPS = {4: "10.77.0.8", 6: "fd77::8"}
IPV6_RTHDR = 57


def loose_route(hop: str) -> bytes:
    return bytes([131, 7, 4]) + socket.inet_aton(hop) + b"\0"


def segments(*hops: str) -> bytes:
    """A routing header of type 4, which needs no capability."""
    head = struct.pack("BBBBBBH", 0, 2 * len(hops), 4, len(hops) - 1, len(hops) - 1, 0, 0)
    return head + b"".join(socket.inet_pton(socket.AF_INET6, each) for each in hops)


def set_route(sock: socket.socket, family: int) -> None:
    hop = HOPS[family]
    if family == 4:
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, loose_route(hop))
    else:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_RTHDR, segments(hop, hop))


@pytest.mark.parametrize("family", [4, 6])
def test_a_captured_pod_sets_none_before_connect_or_afterwards(
    bed: Bed, pod: Pod, far: Pod, family: int
) -> None:
    listeners = bed.capture(pod, "uid-app")
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with pod.socket(kind) as app:
        for is_connected in (False, True):
            if is_connected:
                app.connect(TARGETS[family])
            with pytest.raises(PermissionError):
                set_route(app, family)
        with listeners.outbound.accept()[0] as accepted:
            app.sendall(b"hello")
            assert accepted.recv(5) == b"hello"
    with pod.socket(socket.AF_INET6) as mapped, pytest.raises(PermissionError):
        set_route(mapped, 4)
    assert bed.node.counters()["denied_source_route"] == 3


@pytest.mark.parametrize("family", [4, 6])
def test_one_set_before_the_capture_does_not_connect(
    bed: Bed, pod: Pod, far: Pod, family: int
) -> None:
    kind = socket.AF_INET if family == 4 else socket.AF_INET6
    with pod.socket(kind) as app, far.listen("::", 8080, dual=True):
        set_route(app, family)
        bed.capture(pod, "uid-app")
        for target in (TARGETS[family], ("127.0.0.1" if family == 4 else "::1", 80)):
            with pytest.raises(OSError) as refused:
                app.connect(target)
            assert refused.value.errno in (errno.ENETUNREACH, errno.EPERM)
    assert bed.node.counters()["denied_source_route"] == 2


def test_everything_else_is_set_as_before(bed: Bed, network: Network, pod: Pod, far: Pod) -> None:
    bed.capture(pod, "uid-app")
    with pod.socket() as app:
        app.setsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, b"")  # takes none away
        app.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        assert app.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        # More than a program is shown: the kernel goes by the caller's bytes.
        value = struct.pack("=i", 32768) + bytes(8188)
        app.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, value)
        assert app.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) == 65536
    with far.socket() as outside:
        set_route(outside, 4)
        assert outside.getsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, 40)
