"""Outbound: what an enrolled pod's connect() becomes, on a real kernel."""

from __future__ import annotations

import errno
import socket
import struct
from pathlib import Path

import pytest

from agent.datapath.errors import PodRefused
from bpf import layout
from tests.support.kernel.datapath import (
    Bed,
    Listeners,
    open_listeners,
    original_destination,
)
from tests.support.kernel.netns import Network, Pod, Process, eventually

FAR4, FAR6 = ("10.77.0.9", 8080), ("fd77::9", 8080)


@pytest.mark.parametrize(
    ("family", "target", "wanted", "shown", "own"),
    [
        (socket.AF_INET, FAR4, FAR4, FAR4, "10.77.0.2"),
        (socket.AF_INET6, FAR6, FAR6, FAR6, "fd77::2"),
        (
            socket.AF_INET6,
            ("::ffff:10.77.0.9", 8080),
            FAR4,
            ("::ffff:10.77.0.9", 8080),
            "::ffff:10.77.0.2",
        ),
    ],
    ids=["v4", "v6", "v4-mapped"],
)
def test_the_ztunnel_learns_the_destination_and_the_app_does_not_notice(
    bed: Bed,
    pod: Pod,
    family: int,
    target: tuple[str, int],
    wanted: tuple[str, int],
    shown: tuple[str, int],
    own: str,
) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.dial(target, family=family) as app:
        accepted, _ = listeners.outbound.accept()
        with accepted:
            assert original_destination(accepted) == wanted
            assert app.getpeername()[:2] == shown
            assert app.getsockname()[0] == own
            app.sendall(b"hello")
            assert accepted.recv(16) == b"hello"
            assert original_destination(accepted) == wanted  # the socket's own, while it lives
    counters = bed.node.counters()
    assert (counters["destination_kept"], counters["destination_read"]) == (1, 2)
    assert counters["captured_v6" if wanted == FAR6 else "captured_v4"] == 1
    assert all(use.used == 0 for use in bed.node.usage() if use.name == "destinations")


def test_multipath_tcp_is_captured_too(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.dial(FAR4, protocol=262), listeners.outbound.accept()[0] as got:
        assert original_destination(got) == FAR4


def test_a_v4_destination_is_not_told_at_the_v6_level_and_survives_the_question(
    bed: Bed, pod: Pod
) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.dial(FAR4), listeners.outbound.accept()[0] as accepted:
        with pytest.raises(OSError):
            accepted.getsockopt(41, 80, 28)
        with pytest.raises(OSError):
            accepted.getsockopt(0, 80, 8)  # too small a buffer loses nothing either
        assert socket.inet_ntoa(accepted.getsockopt(0, 80, 16)[4:8]) == FAR4[0]


def test_data_that_rides_with_the_syn_is_captured(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.socket() as app:
        app.settimeout(None)
        app.sendto(b"early", socket.MSG_FASTOPEN, FAR4)
        with listeners.outbound.accept()[0] as accepted:
            assert original_destination(accepted) == FAR4
            assert accepted.recv(16) == b"early"


def test_a_connection_that_was_reset_before_the_accept_leaves_no_entry(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    for target in (FAR4, FAR6):
        with pod.dial(target) as app:
            app.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        with listeners.outbound.accept()[0] as accepted:
            eventually(lambda a=accepted: _is_over(a), "the reset to arrive")  # type: ignore[misc]
            assert original_destination(accepted) == target
    assert all(use.used == 0 for use in bed.node.usage() if use.name == "destinations")


def _is_over(accepted: socket.socket) -> bool:
    return accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1) == bytes([7])  # TCP_CLOSE


def test_a_released_pods_live_connection_keeps_its_peer(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.dial(FAR4) as app, listeners.outbound.accept()[0] as accepted:
        bed.node.release("uid-app")
        assert app.getpeername() == FAR4
        app.sendall(b"still")
        assert accepted.recv(16) == b"still"


@pytest.mark.parametrize("target", [FAR4, FAR6])
def test_a_connect_that_was_steered_just_before_the_release_is_told(
    bed: Bed, pod: Pod, target: tuple[str, int]
) -> None:
    """TCP Fast Open sends the SYN later than connect() returns; without it, a moment later."""
    listeners = bed.capture(pod, "uid-app")
    with pod.inside():
        Path("/proc/sys/net/ipv4/tcp_fastopen").write_text("5")  # a client's, without a cookie
    with pod.socket(socket.AF_INET6 if ":" in target[0] else socket.AF_INET) as app:
        app.setsockopt(socket.IPPROTO_TCP, 30, 1)  # TCP_FASTOPEN_CONNECT
        app.connect(target)
        (captured,) = bed.node.captured()
        bed.node.forget_entry(captured.cookie)
        app.sendall(b"late")
        with listeners.outbound.accept()[0] as accepted:
            assert original_destination(accepted) == target
            assert accepted.recv(16) == b"late"


@pytest.mark.parametrize(
    ("family", "host"),
    [
        (socket.AF_INET, "127.0.0.1"),
        (socket.AF_INET, "10.77.0.2"),
        (socket.AF_INET, "0.0.0.0"),
        (socket.AF_INET6, "::1"),
        (socket.AF_INET6, "fd77::2"),
        (socket.AF_INET6, "::ffff:127.0.0.1"),
        (socket.AF_INET6, "::ffff:10.77.0.2"),
    ],
)
def test_the_pod_talks_to_itself_without_the_tunnel(
    bed: Bed, pod: Pod, family: int, host: str
) -> None:
    bed.capture(pod, "uid-app")
    with pod.listen("::", dual=True) as server:
        port = server.getsockname()[1]
        with pod.dial((host, port), family=family) as app:
            server.accept()[0].close()
            assert app.recv(1) == b""
    assert bed.node.counters()["passed_local"] >= 1
    assert bed.node.counters()["captured_v4"] == 0


def test_an_app_bound_to_loopback_is_captured_and_reaches_the_outbound_listener(
    bed: Bed, pod: Pod
) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.socket() as app:
        app.bind(("127.0.0.1", 0))
        app.connect(FAR4)
        with listeners.outbound.accept()[0] as accepted:
            assert original_destination(accepted) == FAR4


def test_a_family_without_an_own_address_is_refused(bed: Bed, network: Network) -> None:
    pod = network.pod("v4only", "10.77.0.3")
    bed.capture(pod, "uid-v4only")
    with pytest.raises(OSError) as refused:
        pod.dial(FAR6)
    assert refused.value.errno in (errno.ENETUNREACH, errno.EPERM)
    assert bed.node.counters()["denied_no_address"] == 1


def test_link_local_neighbours_are_refused(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    with pod.inside():
        scope = socket.if_nametoindex("eth0")
    with pod.socket(socket.AF_INET6) as app, pytest.raises(OSError) as refused:
        app.connect(("fe80::1", 80, 0, scope))
    assert refused.value.errno in (errno.ENETUNREACH, errno.EPERM)
    assert bed.node.counters()["denied_link_local"] == 1


def test_only_the_ztunnels_cgroup_is_exempt(bed: Bed, network: Network, pod: Pod) -> None:
    far = network.pod("far", "10.77.0.9")
    bed.capture(pod, "uid-app").outbound.close()
    with far.listen("0.0.0.0", 8080) as server:
        with bed.ztunnel.dial(pod, FAR4) as direct:
            server.accept()[0].close()
            assert direct.getpeername() == FAR4
        # The mark that Istio's rules honour is anybody's to set, so it must not open the way.
        with Process() as stranger, pytest.raises(ConnectionRefusedError):
            stranger.dial(pod, FAR4, mark=1337)
        server.settimeout(0)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_a_dead_ztunnel_means_refusal_not_plaintext(bed: Bed, network: Network, pod: Pod) -> None:
    far = network.pod("far", "10.77.0.9", "fd77::9")
    listeners = bed.capture(pod, "uid-app")
    with far.listen("::", 8080, dual=True):
        listeners.close()
        for family, target in ((socket.AF_INET, FAR4), (socket.AF_INET6, FAR6)):
            with pytest.raises(ConnectionRefusedError):
                pod.dial(target, family=family)


def test_a_socket_that_was_refused_and_then_stays_local_keeps_no_false_peer(
    bed: Bed, pod: Pod
) -> None:
    bed.capture(pod, "uid-app").outbound.close()
    with pod.listen("127.0.0.1") as server, pod.socket() as app:
        app.settimeout(None)  # a refused non-blocking socket cannot connect again at once
        with pytest.raises(ConnectionRefusedError):
            app.connect(FAR4)
        app.connect(server.getsockname())
        assert app.getpeername() == server.getsockname()


def test_500_connects_at_once_all_find_their_destination(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    wanted = {(f"10.77.{1 + n // 250}.{1 + n % 250}", 1000 + n) for n in range(500)}
    apps = []
    with pod.inside():
        for target in wanted:
            app = socket.socket()
            apps.append(app)
            app.setblocking(False)
            app.connect_ex(target)
    found = set()
    for _ in wanted:
        with listeners.outbound.accept()[0] as accepted:
            found.add(original_destination(accepted))
    for app in apps:
        app.close()
    assert found == wanted
    counters = bed.node.counters()
    assert (counters["destination_missing"], counters["storage_failed"]) == (0, 0)
    assert all(use.used == 0 for use in bed.node.usage() if use.name == "destinations")


@pytest.mark.parametrize("target", [FAR4, FAR6])
def test_a_full_table_costs_no_connection_that_waits_for_the_ztunnel(
    bed: Bed, pod: Pod, target: tuple[str, int]
) -> None:
    """A pod that floods the table pushes nobody else's destination out of it."""
    listeners = bed.capture(pod, "uid-app")
    table = bed.node._maps["destinations"]
    with pod.dial(target):
        for number in range(2 * layout.DESTINATIONS_MAX):
            key = struct.pack("=Q", number).ljust(table.key_bytes, b"\1")
            table.update(key, bytes(table.value_bytes))
        with listeners.outbound.accept()[0] as accepted:
            assert original_destination(accepted) == target


def test_who_is_not_enrolled_is_not_touched(bed: Bed, network: Network) -> None:
    plain, far = network.pod("plain", "10.77.0.4"), network.pod("far", "10.77.0.9")
    with far.listen("0.0.0.0", 8080) as server, plain.dial(FAR4):
        _, client = server.accept()
        assert client[0] == "10.77.0.4"
    assert sum(bed.node.counters().values()) == 0


def test_listeners_of_a_foreign_namespace_are_refused(bed: Bed, network: Network, pod: Pod) -> None:
    other = network.pod("other", "10.77.0.5")
    foreign: Listeners = open_listeners(bed.ztunnel, other)
    with pytest.raises(PodRefused):
        bed.capture(pod, "uid-app", foreign)
    assert bed.node.captured() == []
