"""A node whose conntrack knows what a pod did before it was in the mesh, as behind kube-proxy."""

from __future__ import annotations

import socket
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.lab.netns import inside
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import ENROLLED, FAMILIES, PORT, Bed, soon, speak
from tests.support.lab.mesh_direct import chosen, direct_mesh

SERVICE = {4: "10.99.7.7", 6: "fd99::7:7"}  # the host's word alone; the mesh has no such service
SOURCE_PORT = 23456  # not one that the kernel chooses by itself
REMEMBERED_S = 5
ABORT = struct.pack("ii", 1, 0)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with direct_mesh(tmp_path_factory.mktemp("conntrack"), workers=1) as made:
        translate(made)
        yield made


def translate(bed: Bed) -> None:
    """The host sends connections to SERVICE to the pod `near`, and remembers them for a while."""
    node = bed.lab.store.load().node(bed.here).netns
    rules = "".join(
        f"table {name} tested {{ chain service {{ type nat hook prerouting priority dstnat; "
        f"{name} daddr {SERVICE[family]} tcp dport 80 dnat to {target}:{PORT}\n}}\n}}\n"
        for family, name, target in (
            (4, "ip", bed.address("near", 4)),
            (6, "ip6", f"[{bed.address('near', 6)}]"),
        )
    )
    subprocess.run(
        ["ip", "netns", "exec", node, "nft", "-f", "-"], input=rules.encode(), check=True
    )
    limit = Path("/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_time_wait")
    with inside(node):
        limit.write_text(str(REMEMBERED_S))


def from_one_port(bed: Bed, address: str, port: int) -> socket.socket:
    sock = bed.socket("client", 6 if ":" in address else 4)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(("", SOURCE_PORT))
        sock.connect((address, port))
    except OSError:
        sock.close()
        raise
    return sock


def states(bed: Bed) -> set[str]:
    return {pod["state"] for pod in bed.agent(bed.here)["pods"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_a_port_that_was_used_before_the_capture_is_good_for_a_direct_connection(
    bed: Bed, family: int
) -> None:
    """Conntrack would give it another port, with which nobody has vouched for it."""
    bed.mode("mesh", "-")
    soon(lambda: states(bed) == {"not_enrolled"}, "the pods are out of the mesh")
    with from_one_port(bed, SERVICE[family], 80) as before:
        assert speak(before)
    bed.mode("mesh", "=ambient")
    bed.wait_captured(ENROLLED)
    count = chosen(bed)

    def is_direct() -> bool:
        with from_one_port(bed, bed.address("near", family), PORT) as sock:
            assert speak(sock)  # not refused, by whatever path
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, ABORT)
        return chosen(bed) > count

    eventually(is_direct, "direct again once the host has forgotten", REMEMBERED_S + 20)
