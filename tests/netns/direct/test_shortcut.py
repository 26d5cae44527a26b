"""Shortcuts: segments of established direct connections that pass the host's stack by."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator

import pytest

from agent.datapath import programs, veth
from control.model.address import parse_address
from tests.support.kernel.datapath import SOURCE
from tests.support.kernel.direct_bed import CLIENT4, PORT, SERVER4, SERVER6, DirectBed, direct_bed
from tests.support.kernel.netns import Pod, eventually, run
from tests.support.kernel.raw_tcp import ACK, RST, send_segment


@pytest.fixture
def pair() -> Iterator[DirectBed]:
    """The agent lives where the pods' veths end: on the host, which is the switch here."""
    if not programs.has_tcx():
        pytest.skip("this kernel has no tcx (Linux 6.6)")
    with direct_bed(direct=False) as made:
        capture(made)
        made.open()
        yield made


def host(pair: DirectBed) -> Pod:
    return Pod.at(pair.client.path.with_name(pair.network.hub_namespace))


def capture(pair: DirectBed) -> None:
    with host(pair).inside():
        pair.bed.capture(pair.client, "uid-client", pair.at_client, direct=True)
        pair.bed.capture(pair.server, "uid-server", pair.at_server, direct=True)


def index_of(pair: DirectBed, pod: Pod) -> int:
    with host(pair).inside():
        return socket.if_nametoindex(pod.port)


def test_the_hosts_end_of_a_veth_is_found_by_the_pods_address(pair: DirectBed) -> None:
    with pair.client.fd() as netns_fd:
        with host(pair).inside():
            for address in (CLIENT4, "fd77::2"):
                found = veth.host_end(netns_fd, parse_address(address))
                assert found == index_of(pair, pair.client)
            assert veth.host_end(netns_fd, parse_address(SERVER4)) is None
            assert veth.host_end(netns_fd, parse_address("127.0.0.1")) is None  # no veth
        assert veth.host_end(netns_fd, parse_address(CLIENT4)) is None  # ends elsewhere
        with pair.client.inside():
            assert veth.host_end(netns_fd, parse_address(CLIENT4)) is None


def talk(sock: socket.socket, accepted: socket.socket) -> None:
    for one, other in ((sock, accepted), (accepted, sock)):
        sent = bytes(range(256)) * 400
        one.sendall(sent)
        read = b""
        while len(read) < len(sent):
            read += other.recv(65536)
        assert read == sent


@pytest.mark.parametrize("target", [SERVER4, SERVER6])
def test_an_established_connection_takes_the_shortcut_to_its_end(
    pair: DirectBed, target: str
) -> None:
    for client_first in (True, False):
        with pair.dial((target, PORT)) as sock, pair.app.accept()[0] as accepted:
            assert pair.used("shortcuts") == 2
            before = pair.counter("shortcut_taken")
            talk(sock, accepted)
            assert pair.counter("shortcut_taken") > before
            first, second = (sock, accepted) if client_first else (accepted, sock)
            first.close()
            assert second.recv(1) == b""
            assert pair.used("shortcuts") == 2  # the other end has still to say goodbye
        eventually(lambda: pair.used("shortcuts") == 0, "both ends closed")
    assert pair.counter("shortcut_opened") == 2


def test_what_is_captured_or_not_ours_takes_the_hosts_way(pair: DirectBed) -> None:
    pair.tables.set_state(0, 0)
    pair.assert_captured()
    plain = pair.network.pod("plain", "10.77.0.9")
    with plain.socket() as sock:
        sock.connect((SERVER4, PORT))
        pair.at_server.plaintext.accept()[0].close()
    assert pair.counter("shortcut_taken") == pair.counter("shortcut_opened") == 0


def test_segments_that_another_pod_forges_take_the_hosts_way(pair: DirectBed) -> None:
    with pair.dial() as sock, pair.app.accept()[0] as accepted:
        talk(sock, accepted)
        before = pair.counter("shortcut_taken")
        spoofer = pair.network.pod("spoofer", "10.77.0.5")
        with host(pair).inside():
            at_spoofer = pair.bed.capture(spoofer, "uid-spoofer", direct=True)
        assert at_spoofer
        send_segment(spoofer, sock.getsockname(), (SERVER4, PORT), ACK)
        send_segment(spoofer, sock.getsockname(), (SERVER4, PORT), RST | ACK)
        talk(sock, accepted)
        taken_before = pair.counter("shortcut_taken")
        assert taken_before > before
        send_segment(spoofer, sock.getsockname(), (SERVER4, PORT), ACK)
        assert pair.counter("shortcut_taken") == taken_before


NAT = """
table ip tk {{
    chain tk {{
        type nat hook output priority -100
        ip daddr 127.0.0.9 dnat to {target}
    }}
}}
"""


def test_a_pod_that_gives_itself_both_addresses_ends_nobodys_shortcut(pair: DirectBed) -> None:
    """It has the same connection, as far as names go, with itself: over and over."""
    third = pair.network.pod("third", "10.77.0.5")
    with host(pair).inside():
        pair.bed.capture(third, "uid-third", direct=True)
    for address in (CLIENT4, SERVER4):
        run("ip", "-n", third.namespace, "address", "add", f"{address}/32", "dev", "lo")
    nft = ["ip", "netns", "exec", third.namespace, "nft", "-f", "-"]
    subprocess.run(nft, input=NAT.format(target=SERVER4), text=True, check=True, timeout=30)
    with pair.dial() as sock, pair.app.accept()[0] as accepted, third.listen("", PORT) as own:
        assert pair.used("shortcuts") == 2
        for _ in range(3):
            with third.socket() as fake:
                fake.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                fake.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                fake.bind(sock.getsockname())
                fake.connect(("127.0.0.9", PORT))  # its own loopback: nobody captures it
                with own.accept()[0] as end:
                    names = (end.getpeername(), end.getsockname())
                    assert names == (sock.getsockname(), (SERVER4, PORT))
        assert pair.used("shortcuts") == 2
        talk(sock, accepted)


def test_a_reset_ends_both(pair: DirectBed) -> None:
    with pair.dial() as sock, pair.app.accept()[0] as accepted:
        sock.sendall(b"unread")
        eventually(lambda: accepted.recv(6, socket.MSG_PEEK) == b"unread")
        accepted.close()
        with pytest.raises(ConnectionResetError):
            sock.recv(1)
    eventually(lambda: pair.used("shortcuts") == 0, "both ends closed")


@pytest.mark.parametrize("version", [None, "other"], ids=["same layout", "new layout"])
def test_live_connections_keep_their_shortcut_over_an_agents_restart(
    pair: DirectBed, version: str | None
) -> None:
    with pair.dial() as sock, pair.app.accept()[0] as accepted:
        pair.bed.node.close()
        pair.bed.node = pair.bed.reopened(source=SOURCE, version=version)
        before = pair.counter("shortcut_taken")
        talk(sock, accepted)
        assert pair.counter("shortcut_taken") > before
        assert pair.used("shortcuts") == 2


def test_a_release_takes_program_and_entries_and_the_connection_goes_on(pair: DirectBed) -> None:
    with pair.dial() as sock, pair.app.accept()[0] as accepted:
        pair.bed.node.release("uid-server")
        assert pair.used("shortcuts") == 0
        before = pair.counter("shortcut_taken")
        talk(sock, accepted)
        assert pair.counter("shortcut_taken") == before


def test_switched_off_there_are_no_new_ones(pair: DirectBed) -> None:
    with pair.dial() as sock, pair.app.accept()[0] as accepted:
        pair.bed.node.close()
        pair.bed.node = pair.bed.reopened(wants_shortcuts=False)
        talk(sock, accepted)
        assert pair.counter("shortcut_taken") > 0
    eventually(lambda: pair.used("shortcuts") == 0, "both ends closed")
    capture(pair)
    pair.assert_direct()
    assert pair.counter("shortcut_opened") == 1
    assert pair.bed.node.shortcut_obstacle == "switched off"
