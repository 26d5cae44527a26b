"""The host's firewall and conntrack, and direct connections whose segments pass them by."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from agent.lab.netns import inside
from tests.support.lab.mesh_bed import FAMILIES, PORT, Bed, soon, speak
from tests.support.lab.mesh_direct import chosen, counter, direct_mesh, goes_direct

AGAIN = 10
BULK = "b" * 700_000
# As kube-proxy drops it.
INVALID = """
table inet tr {
    chain tr {
        type filter hook forward priority 0
        ct state invalid drop
    }
}
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with direct_mesh(tmp_path_factory.mktemp("host"), workers=1) as made:
        yield made


def nft(bed: Bed, text: str) -> None:
    with inside(bed.lab.store.load().node(bed.here).netns):
        subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, timeout=30)


@pytest.fixture
def strict_host(bed: Bed) -> Iterator[Bed]:
    nft(bed, INVALID)
    yield bed
    nft(bed, "delete table inet tr")


def test_a_rule_against_new_connections_holds_and_open_ones_go_on(strict_host: Bed) -> None:
    bed = strict_host
    client, near = bed.address("client", 4), bed.address("near", 4)
    rule = f"ct state new ip saddr {client} ip daddr {near} tcp dport {PORT} drop"

    def dropped() -> bool:
        """A try of the kernel's own times out; one that the tunnel took, on a busy host, says
        nothing."""
        before = chosen(bed), counter(bed, "inbound_vouched")
        with closing(bed.socket("client", 4)) as fresh:
            fresh.settimeout(0.5)
            try:
                fresh.connect((near, PORT))
            except TimeoutError:
                assert (chosen(bed), counter(bed, "inbound_vouched")) == (before[0] + 1, before[1])
                return True
            assert chosen(bed) == before[0], "a new direct connection passed the rule"
            return False

    with goes_direct(bed, near) as kept:
        nft(bed, f"add rule inet tr tr {rule}")
        soon(dropped, "a direct connection that the host's rule drops")
        assert speak(kept, BULK)


@contextmanager
def from_port(bed: Bed, address: str, port: int) -> Iterator[socket.socket]:
    """Ends by a reset, so that the port can be used again at once."""
    with bed.socket("client", 6 if ":" in address else 4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        sock.bind(("", port))
        sock.connect((address, PORT))
        yield sock


@pytest.mark.parametrize("family", FAMILIES)
def test_the_same_ports_again_and_again(strict_host: Bed, family: int) -> None:
    """Conntrack never saw the end of the first connection."""
    bed, address = strict_host, strict_host.address("near", family)
    with goes_direct(bed, address) as first:
        port = first.getsockname()[1] ^ 1
    before = chosen(bed)
    for _ in range(AGAIN):
        with from_port(bed, address, port) as sock:
            assert speak(sock, BULK)
    assert chosen(bed) == before + AGAIN


@pytest.mark.parametrize("family", FAMILIES)
def test_who_has_said_everything_hears_the_rest(strict_host: Bed, family: int) -> None:
    bed = strict_host
    for _ in range(AGAIN):
        with goes_direct(bed, bed.address("near", family)) as sock:
            sock.sendall(f"{BULK}\n".encode())
            sock.shutdown(socket.SHUT_WR)
            heard = 0
            while piece := sock.recv(1 << 20):
                heard += len(piece)
            assert heard > len(BULK)
