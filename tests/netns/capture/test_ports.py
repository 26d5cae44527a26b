"""Ports: a captured pod has all those that it would have without the mesh, on a real kernel."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from bpf import layout
from tests.support.kernel.datapath import (
    Bed,
    Listeners,
    open_listeners,
    original_destination,
)
from tests.support.kernel.netns import Network, Pod, eventually, run

POD4, POD6 = "10.77.0.2", "fd77::2"
FAR4, FAR6 = "10.77.0.9", "fd77::9"
TARGET6, SOURCE6 = "fd74:756c:6c65:1::7", "fd74:756c:6c65:2::7"
_BIND_TO_DEVICE = 25
ROLES = ("hbone", "plaintext", "outbound")


def narrow(pod: Pod, ports: int) -> None:
    """Leave the pod so many ports to connect from, of both families."""
    with pod.inside():
        path = Path("/proc/sys/net/ipv4/ip_local_port_range")
        path.write_text(f"41000 {41000 + ports - 1}")


def shares(listeners: Sequence[socket.socket], calls: int) -> list[int]:
    """Connections that each listener gets, out of so many calls, all of which are closed."""
    taken = [0] * len(listeners)

    def accept() -> bool:
        for number, listener in enumerate(listeners):
            listener.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    listener.accept()[0].close()
                    taken[number] += 1
        return sum(taken) >= calls

    eventually(accept, f"{calls} connections to accept")
    return taken


@contextlib.contextmanager
def serving(listener: socket.socket, answer: bytes = b"") -> Iterator[None]:
    """Accept every connection, answer it and wait for its end."""

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                accepted, _ = listener.accept()
                with accepted, contextlib.suppress(OSError):
                    accepted.sendall(answer)
                    accepted.recv(1)

    listener.settimeout(None)
    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


# The way out: one set of ports for each destination


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, FAR4), (socket.AF_INET6, FAR6)])
def test_one_source_port_reaches_several_destinations_at_once(
    bed: Bed, pod: Pod, family: int, host: str
) -> None:
    listeners = bed.capture(pod, "uid-app")
    wanted = {(host, port) for port in (80, 81, 443)} | {(host[:-1] + "8", 80)}
    found, held = set(), contextlib.ExitStack()
    with held:
        for target in sorted(wanted):
            app = held.enter_context(pod.socket(family))
            app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            app.bind(("", 5000))
            app.connect(target)
            assert app.getpeername()[:2] == target
            assert app.getsockname()[:2] == (POD4 if family == socket.AF_INET else POD6, 5000)
        for _ in wanted:
            accepted = held.enter_context(listeners.outbound.accept()[0])
            found.add(original_destination(accepted))
    assert found == wanted


def test_the_same_two_ends_meet_as_they_would_without_the_mesh(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    with pod.socket() as first, pod.socket() as second:
        for app in (first, second):
            app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            app.bind(("", 5000))
        first.connect((FAR4, 80))
        with pytest.raises(OSError, match="assign requested address"):
            second.connect((FAR4, 80))


@pytest.mark.parametrize("host", [FAR4, FAR6])
def test_a_client_has_its_ports_once_for_each_destination(bed: Bed, pod: Pod, host: str) -> None:
    bed.capture(pod, "uid-app")
    narrow(pod, 100)
    held = [pod.dial((host, port)) for port in (80, 81, 82) for _ in range(90)]
    for each in held:
        each.close()
    assert bed.node.counters()["destination_kept"] == len(held)


# The way in: the ztunnel's dials take none of the app's ports


@pytest.mark.parametrize("host", [POD4, POD6])
def test_an_app_takes_more_connections_than_the_pod_has_ports(
    bed: Bed, pod: Pod, host: str
) -> None:
    bed.capture(pod, "uid-app")
    narrow(pod, 20)
    with pod.listen("::", dual=True) as app:
        target = (host, app.getsockname()[1])
        held = [bed.ztunnel.dial(pod, target, ours=True) for _ in range(100)]
        sources = {each.getsockname()[0] for each in held}
        ports = {each.getsockname()[1] for each in held}
        for each in held:
            each.close()
    assert len(sources) > 90
    assert ports == {layout.SOURCE_PORT}
    assert bed.node.counters()["source_chosen"] >= 100


@pytest.mark.parametrize("host", [POD4, POD6])
def test_short_connections_wait_for_no_old_ones(bed: Bed, pod: Pod, host: str) -> None:
    """Each leaves its source in TIME_WAIT for a minute."""
    bed.capture(pod, "uid-app")
    narrow(pod, 20)
    with pod.listen("::", dual=True) as app, serving(app):
        bed.ztunnel.churn(pod, (host, app.getsockname()[1]), 3000)


@pytest.mark.parametrize("source", ["", "203.0.113.7"], ids=["unbound", "bound to the client"])
def test_a_foreign_ztunnel_has_the_sources_too(bed: Bed, pod: Pod, source: str) -> None:
    bed.capture(pod, "uid-app")
    narrow(pod, 20)
    with pod.listen("::", dual=True) as app:
        target = (POD4, app.getsockname()[1])
        held = [bed.ztunnel.dial(pod, target, source=source) for _ in range(100)]
        for each in held:
            each.close()


def test_an_app_with_the_sources_port_leaves_the_dial_another(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    with (
        pod.listen("::", dual=True) as app,
        pod.listen("0.0.0.0", layout.SOURCE_PORT),
        bed.ztunnel.dial(pod, (POD4, app.getsockname()[1]), ours=True) as inner,
    ):
        host, port = inner.getsockname()
    assert host.startswith("127.")
    assert port != layout.SOURCE_PORT


def test_an_app_on_its_device_is_reached_and_reaches_out(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    for family, own, far in ((socket.AF_INET, POD4, FAR4), (socket.AF_INET6, POD6, FAR6)):
        with pod.socket(family) as app, pod.socket(family) as client:
            for each in (app, client):
                each.setsockopt(socket.SOL_SOCKET, _BIND_TO_DEVICE, b"eth0")
            app.bind((own, 0))
            app.listen()
            target = (own, app.getsockname()[1])
            with bed.ztunnel.dial(pod, target, ours=True) as inner, app.accept()[0] as accepted:
                accepted.sendall(b"answer")
                assert inner.recv(16) == b"answer"
            client.connect((far, 80))
            with listeners.outbound.accept()[0] as steered:
                assert original_destination(steered) == (far, 80)


# The app's own ports


def taken(pod: Pod, host: str, *, reuse: bool) -> set[int]:
    """Ports that an app of the pod cannot listen on."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = set()
    with pod.inside():
        for port in range(1, 65536):
            with socket.socket(family) as app:
                app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
                try:
                    app.bind((host, port))
                    app.listen()
                except OSError:
                    found.add(port)
    return found


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_an_app_has_every_port_but_the_tunnels(bed: Bed, pod: Pod, host: str) -> None:
    """With connections open both ways; the sources' port is the app's if it sets SO_REUSEADDR, as
    servers do."""
    listeners = bed.capture(pod, "uid-app")
    with contextlib.ExitStack() as held:
        app = held.enter_context(pod.listen(POD4, 15020))
        for _ in range(100):
            held.enter_context(bed.ztunnel.dial(pod, (POD4, 15020), ours=True))
            held.enter_context(app.accept()[0])
        clients = [held.enter_context(pod.dial((FAR4, 40000 + each))) for each in range(100)]
        for _ in clients:
            held.enter_context(listeners.outbound.accept()[0])
        # Its own clients' ports are taken without the mesh as well.
        theirs = {15020, *(client.getsockname()[1] for client in clients)}
        assert taken(pod, host, reuse=True) - theirs == {layout.HBONE_PORT}
        without = {layout.HBONE_PORT, layout.SOURCE_PORT}
        assert taken(pod, host, reuse=False) - theirs == without


def test_a_port_that_the_app_had_first_is_no_obstacle(bed: Bed, pod: Pod, far: Pod) -> None:
    """Listeners may have any port: connections are given to sockets."""
    with pod.listen("0.0.0.0", layout.HBONE_PORT) as app:
        app.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        opened = Listeners(*(bed.ztunnel.listen(pod, "::") for _ in range(3)))
        bed.capture(pod, "uid-app", opened)
        with far.dial((POD4, layout.HBONE_PORT)), opened.hbone.accept()[0]:
            pass
        with pod.dial((FAR4, 80)), opened.outbound.accept()[0]:
            pass
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()


# Nobody in the pod gets what is the ztunnel's


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
@pytest.mark.parametrize("first", [False, True], ids=["after us", "before us"])
def test_a_process_that_joins_our_port_gets_nothing(
    bed: Bed, pod: Pod, far: Pod, family: int, first: bool
) -> None:
    """Root of the pod has the ztunnel's uid, so it may join its SO_REUSEPORT groups."""
    own, away = (POD4, FAR4) if family == socket.AF_INET else (POD6, FAR6)
    opened = open_listeners(bed.ztunnel, pod)
    hosts = ("0.0.0.0", "::", own, "127.64.0.1", TARGET6)
    with contextlib.ExitStack() as held:

        def join() -> list[socket.socket]:
            found = []
            for host in hosts:
                with contextlib.suppress(OSError):
                    joined = pod.listen(host, layout.HBONE_PORT, dual=True)
                    found.append(held.enter_context(joined))
            return found

        joined = join() if first else []
        bed.capture(pod, "uid-app", opened)
        joined += join()
        assert joined
        for _ in range(40):
            for target in ((own, layout.HBONE_PORT), (own, 8080)):
                held.enter_context(far.dial(target))
            held.enter_context(pod.dial((away, 80)))
        assert shares([*opened.all(), *joined], 120) == [40] * 3 + [0] * len(joined)


def test_workers_share_the_connections_of_each_role(bed: Bed, pod: Pod, far: Pod) -> None:
    first, second = open_listeners(bed.ztunnel, pod), open_listeners(bed.ztunnel, pod)
    bed.capture(pod, "uid-app", first, second)
    with contextlib.ExitStack() as held:
        for _ in range(60):
            held.enter_context(far.dial((POD4, layout.HBONE_PORT)))
            held.enter_context(far.dial((POD4, 8080)))
            held.enter_context(pod.dial((FAR4, 80)))
        for role in ROLES:
            assert min(shares([getattr(each, role) for each in (first, second)], 60)) > 10, role


def test_an_ack_with_a_syn_cookie_meets_the_listener_that_gave_it(
    bed: Bed, pod: Pod, far: Pod
) -> None:
    with pod.inside():
        Path("/proc/sys/net/ipv4/tcp_syncookies").write_text("2")
    workers = [open_listeners(bed.ztunnel, pod) for _ in range(4)]
    bed.capture(pod, "uid-app", *workers)
    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(far.dial((POD4, layout.HBONE_PORT)))
        assert all(shares([each.hbone for each in workers], 40))


# The mesh's block


def refused(dial: Callable[[], socket.socket]) -> bool:
    try:
        dial().close()
    except OSError:
        return True
    return False


def test_the_block_is_the_meshs_alone(bed: Bed, network: Network, pod: Pod) -> None:
    """A stranger to its addresses meets no app, and at a target's port a listener that asks for the
    destination and hears of none."""
    neighbour = network.pod("neighbour", "10.77.0.7", "fd77::7")
    for block in ("fd74:756c:6c65::/48", "127.64.0.0/10"):
        via = POD6 if ":" in block else POD4
        with contextlib.suppress(RuntimeError):  # loopback addresses have no way out
            run("ip", "-n", neighbour.namespace, "route", "add", block, "via", via)
    listeners = bed.capture(pod, "uid-app")
    with pod.listen("::", 8080, dual=True) as app:
        for host in ("127.64.0.9", "127.100.0.9", TARGET6, SOURCE6):
            for port in (8080, layout.HBONE_PORT, layout.SOURCE_PORT):
                steered = port == layout.HBONE_PORT and host in ("127.64.0.9", TARGET6)
                assert refused(lambda h=host, p=port: pod.dial((h, p))) is not steered  # type: ignore[misc]
                if ":" in host:
                    dial = lambda h=host, p=port: neighbour.dial((h, p))  # noqa: E731 shorter
                    assert refused(dial) is not steered
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()
    listeners.outbound.settimeout(5)
    for _ in range(3):
        accepted = listeners.outbound.accept()[0]
        with accepted, pytest.raises(OSError):
            original_destination(accepted)
    assert bed.node.counters()["inbound_refused"] >= 10
    assert shares(listeners.all(), 0) == [0] * 3
