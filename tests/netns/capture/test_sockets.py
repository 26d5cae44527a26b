"""Other processes' sockets: copied from a foreign ztunnel, and ended by the kernel."""

from __future__ import annotations

import socket

import pytest

from agent.datapath import listeners, sockets
from tests.support.kernel.datapath import Bed
from tests.support.kernel.netns import Pod, Process

FAR4 = ("10.77.0.9", 8080)


def test_the_listeners_of_a_foreign_ztunnel_are_copied(bed: Bed, pod: Pod, far: Pod) -> None:
    foreign = Process()
    with foreign:
        foreign.join_cgroup(bed.ztunnel_cgroup)
        held = [foreign.hold(pod, "::", port) for port in listeners.ZTUNNEL_PORTS]
        assert all(held)
        with pod.fd() as netns_fd:
            copies = listeners.copied(foreign.pid, netns_fd)
        assert set(copies) == set(listeners.ZTUNNEL_PORTS)
        with socket.socket(fileno=copies[listeners.HBONE_PORT]) as hbone:
            hbone.settimeout(5)
            with far.dial(("10.77.0.2", 15008)):
                hbone.accept()[0].close()
        for port in (listeners.OUTBOUND_PORT, listeners.PLAINTEXT_PORT):
            socket.socket(fileno=copies[port]).close()


def test_one_live_connection_is_ended_among_others(pod: Pod, far: Pod) -> None:
    with (
        far.listen("::", 8080, dual=True) as server,
        pod.dial(FAR4) as doomed,
        pod.dial(FAR4) as spared,
    ):
        accepted = {peer[1]: sock for sock, peer in (server.accept(), server.accept())}
        port = doomed.getsockname()[1]
        with pod.fd() as netns_fd:
            listed = {each.local.port: each for each in sockets.connections(netns_fd)}
            ended = sockets.destroy(netns_fd, listed[port].local, listed[port].remote)
        assert {str(each.remote) for each in listed.values()} == {"10.77.0.9:8080"}
        assert ended
        with pytest.raises(ConnectionAbortedError):
            doomed.recv(1)
        spared.sendall(b"alive")
        assert accepted[spared.getsockname()[1]].recv(5) == b"alive"
        for sock in accepted.values():
            sock.close()
