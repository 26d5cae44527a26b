"""Inbound: the listener that a SYN meets, and the client that the app sees."""

from __future__ import annotations

import os
import socket
import struct
from concurrent.futures import ThreadPoolExecutor

import pytest

from agent.datapath.entries import PlaintextRules
from agent.datapath.folder import versions
from agent.datapath.maps import Map
from bpf.layout import CLIENTS_MAX, ConnectionKey
from control.model.address import Endpoint, format_address, parse_address
from tests.support.kernel.datapath import Bed, client_option
from tests.support.kernel.netns import Pod, eventually

POD4, POD6 = "10.77.0.2", "fd77::2"
CLIENT4, CLIENT6 = ("203.0.113.7", 5123), ("2001:db8::7", 5123)


@pytest.mark.parametrize("host", [POD4, POD6])
@pytest.mark.parametrize(("port", "listener"), [(15008, "hbone"), (8080, "plaintext")])
def test_the_port_chooses_the_listener_and_both_ends_keep_their_addresses(
    bed: Bed, pod: Pod, far: Pod, host: str, port: int, listener: str
) -> None:
    listeners = bed.capture(pod, "uid-app")
    chosen: socket.socket = getattr(listeners, listener)
    with pod.listen("::", 8080, dual=True), far.dial((host, port)) as client:
        accepted, _ = chosen.accept()
        with accepted:
            mapped = "::ffff:" if host == POD4 else ""
            assert accepted.getsockname()[:2] == (mapped + host, port)
            assert accepted.getpeername()[:2] == (
                mapped + client.getsockname()[0],
                client.getsockname()[1],
            )
    assert bed.node.counters()[f"inbound_{listener}"] == 1


@pytest.mark.parametrize("host", [POD4, POD6])
def test_a_dead_ztunnel_means_refusal_not_plaintext_to_the_app(
    bed: Bed, pod: Pod, far: Pod, host: str
) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.listen("::", 8080, dual=True):
        listeners.close()
        for port in (8080, 15008):
            with pytest.raises(ConnectionRefusedError):
                far.dial((host, port))
    assert bed.node.counters()["inbound_dropped"] >= 2


@pytest.mark.parametrize(
    ("listen", "dial", "client", "seen"),
    [
        ("0.0.0.0", "127.0.0.1", CLIENT4, CLIENT4),
        ("0.0.0.0", POD4, CLIENT4, CLIENT4),
        ("::", "::1", CLIENT6, CLIENT6),
        ("::", POD6, CLIENT6, CLIENT6),
        ("::", POD4, CLIENT4, ("::ffff:203.0.113.7", 5123)),
        ("::", "127.0.0.1", CLIENT4, ("::ffff:203.0.113.7", 5123)),
    ],
)
def test_the_app_sees_the_client_the_ztunnel_speaks_for(
    bed: Bed,
    pod: Pod,
    listen: str,
    dial: str,
    client: tuple[str, int],
    seen: tuple[str, int],
) -> None:
    bed.capture(pod, "uid-app")
    with pod.listen(listen, dual=True) as app:
        target = (dial, app.getsockname()[1])
        with bed.ztunnel.dial(pod, target, option=client_option(*client)) as inner:
            accepted, shown = app.accept()
            with accepted:
                assert shown[:2] == seen
                assert accepted.getpeername()[:2] == seen
                # The ztunnel's own end is not lied to.
                assert inner.getpeername()[:2] == target
                inner.sendall(b"through")
                assert accepted.recv(16) == b"through"
    assert bed.node.counters()["client_shown"] == 1
    assert all(use.used == 0 for use in bed.node.usage() if use.name == "clients")


@pytest.mark.parametrize(
    ("dial", "client", "seen"),
    [
        (POD4, "203.0.113.7", "::ffff:203.0.113.7"),
        (POD6, "2001:db8::7", "2001:db8::7"),
    ],
)
def test_binding_to_the_client_as_istios_ztunnel_does_shows_it_too(
    bed: Bed, pod: Pod, dial: str, client: str, seen: str
) -> None:
    bed.capture(pod, "uid-app")
    with pod.listen("::", dual=True) as app:
        target = (dial, app.getsockname()[1])
        with bed.ztunnel.dial(pod, target, source=client) as inner:
            accepted, shown = app.accept()
            with accepted:
                assert shown[:2] == (seen, inner.getsockname()[1])
                # Answers stay inside the pod, and none of its ports is used up.
                assert inner.getsockname()[0].startswith(("127.", "fd74:756c:6c65:2:"))
                accepted.sendall(b"answer")
                assert inner.recv(16) == b"answer"


def test_a_v4_app_is_never_shown_a_v6_client(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    with pod.listen("0.0.0.0") as app:
        target = ("127.0.0.1", app.getsockname()[1])
        with bed.ztunnel.dial(pod, target, option=client_option(*CLIENT6)) as inner:
            accepted, shown = app.accept()
            with accepted:
                assert shown == accepted.getpeername() == ("0.0.0.0", CLIENT6[1])
            assert inner.getsockname()[0].startswith("127."), "which the app may trust"


def _fill(table: Map, entries: int) -> None:
    """Push out what the table has. A processor's latest entries wait in a list of its own, which
    the others leave alone: so each of them adds as many."""
    before = os.sched_getaffinity(0)
    try:
        for cpu in sorted(before):
            os.sched_setaffinity(0, {cpu})
            for number in range(entries):
                key = struct.pack("=QQ", number, cpu).ljust(table.key_bytes, b"\1")
                table.update(key, bytes(table.value_bytes))
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("listen", "dial", "seen"),
    [("0.0.0.0", POD4, "0.0.0.0"), ("::", POD4, "::ffff:0.0.0.0"), ("::", POD6, "::")],
)
def test_a_client_that_was_pushed_out_of_the_table_is_nobody_and_not_local(
    bed: Bed, pod: Pod, listen: str, dial: str, seen: str
) -> None:
    """Its SYN waits for a full accept queue, and others fill the table meanwhile."""
    bed.capture(pod, "uid-app")
    with pod.listen(listen, dual=True) as app, ThreadPoolExecutor(1) as thread:
        app.listen(0)
        target = (dial, app.getsockname()[1])
        claim = client_option(*CLIENT4)
        with pod.dial(target):  # nobody accepts it, so the queue is full
            late = thread.submit(bed.ztunnel.dial, pod, target, option=claim, ours=True)
            table = bed.node._maps["clients"]
            eventually(lambda: len(list(table)) > 0)
            _fill(table, 2 * CLIENTS_MAX)
            app.accept()[0].close()
            with late.result(), app.accept()[0] as accepted:
                assert accepted.getpeername()[0] == seen
    assert bed.node.counters()["client_missing"] == 1


def test_only_the_ztunnel_can_name_a_client(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    level, name, value = client_option(*CLIENT4)
    with pod.socket() as stranger, pytest.raises(OSError):
        stranger.setsockopt(level, name, value)


def test_a_malformed_claim_is_refused(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    level, name, value = client_option(*CLIENT4)
    with pytest.raises(OSError):
        bed.ztunnel.dial(pod, ("127.0.0.1", 1), option=(level, name, value[:-1]))
    assert bed.node.counters()["client_refused"] == 1


def test_a_claim_that_met_no_listener_does_not_stick_to_the_port(bed: Bed, pod: Pod) -> None:
    """The pod's next connection from that port is its own, not the client's."""
    bed.capture(pod, "uid-app")
    with pod.listen("127.0.0.1") as app:
        target = app.getsockname()
    with pytest.raises(ConnectionRefusedError):
        bed.ztunnel.dial(pod, target, option=client_option(*CLIENT4))
    stale = next(use for use in bed.node.usage() if use.name == "clients")
    assert stale.used == 1
    port = _port_of_only_client(bed)
    with pod.listen(target[0], target[1]) as app, pod.socket() as own:
        own.bind(("127.0.0.1", port))
        own.connect(target)
        accepted, shown = app.accept()
        accepted.close()
        assert shown == ("127.0.0.1", port)


def _port_of_only_client(bed: Bed) -> int:
    with Map.open(versions(bed.pin_root)[0].maps / "clients") as clients:
        (key,) = clients
    return int(ConnectionKey.from_buffer_copy(key).port)


def test_traffic_inside_the_pod_passes(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    with pod.listen("::", 8080, dual=True) as app:
        for host in ("127.0.0.1", POD4, "::1", POD6):
            with pod.dial((host, 8080)):
                app.accept()[0].close()
    assert bed.node.counters()["inbound_plaintext"] == 0


CLOSED = PlaintextRules(True, frozenset({9090}))


@pytest.mark.parametrize("host", [POD4, POD6])
def test_a_port_closed_to_plaintext_refuses_the_syn(
    bed: Bed, pod: Pod, far: Pod, host: str
) -> None:
    listeners = bed.capture(pod, "uid-app")
    bed.node.set_plaintext("uid-app", CLOSED)
    with pod.listen("::", 8080, dual=True) as app:
        with pytest.raises(ConnectionRefusedError):
            far.dial((host, 8080))
        for port, listener in ((9090, listeners.plaintext), (15008, listeners.hbone)):
            with far.dial((host, port)):
                listener.accept()[0].close()
        with pod.dial((host, 8080)):  # its own connections are not plaintext of others
            app.accept()[0].close()
    assert bed.node.counters()["inbound_strict"] > 0
    ((count, syn),) = bed.node.refused("uid-app").values()
    assert (syn.reason, count) == ("inbound_strict", bed.node.counters()["inbound_strict"])
    assert syn.destination == Endpoint(parse_address(host), 8080)
    assert format_address(syn.source.address) in (far.ip4, far.ip6)
    bed.node.set_plaintext("uid-app", PlaintextRules(False, frozenset({9090})))
    with far.dial((host, 8080)):
        listeners.plaintext.accept()[0].close()
    with pytest.raises(ConnectionRefusedError):
        far.dial((host, 9090))


def test_closed_ports_outlive_the_agent_and_go_with_the_pod(bed: Bed, pod: Pod, far: Pod) -> None:
    bed.node.set_plaintext("uid-app", CLOSED)  # before its capture
    listeners = bed.capture(pod, "uid-app")
    bed.node.close()
    bed.node = bed.reopened()
    with pytest.raises(ConnectionRefusedError):
        far.dial((POD4, 8080))
    bed.capture(pod, "uid-app", listeners)  # again, as after a restart: nobody has said otherwise
    with pytest.raises(ConnectionRefusedError):
        far.dial((POD4, 8080))
    bed.node.release("uid-app")
    bed.capture(pod, "uid-app", listeners)
    with far.dial((POD4, 8080)):
        listeners.plaintext.accept()[0].close()


def test_a_version_without_closed_ports_is_taken_over(bed: Bed, pod: Pod, far: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    (version,) = versions(bed.pin_root)
    bed.node.close()
    (version.pods / "uid-app" / "plaintext").unlink()
    bed.node = bed.reopened(version="other")
    with far.dial((POD4, 8080)):
        listeners.plaintext.accept()[0].close()
    bed.node.set_plaintext("uid-app", CLOSED)
    with pytest.raises(ConnectionRefusedError):
        far.dial((POD4, 8080))
