"""A SYN from outside whose source only the pod itself can have; with data, for TCP fast open."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator

import pytest

from agent.datapath.entries import PlaintextRules
from tests.support.kernel.datapath import Bed, client_option
from tests.support.kernel.netns import Pod, eventually
from tests.support.kernel.raw_tcp import send_first_data

POD6 = "fd77::2"
TCP_FASTOPEN, TCP_FASTOPEN_NO_COOKIE = 23, 34
PORT = 8080


@contextlib.contextmanager
def fast_server(pod: Pod) -> Iterator[socket.socket]:
    """An app that takes data with the first segment, and asks for no cookie."""
    with pod.inside():
        app = socket.socket(socket.AF_INET6)
    with app:
        app.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN, 16)
        app.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, 1)
        app.bind(("::", PORT))
        app.listen(16)
        app.settimeout(5)
        with pod.inside():
            path = "/proc/sys/net/ipv4/tcp_fastopen"
            with open(path, "w") as switch:
                switch.write("3")
        yield app


@pytest.mark.parametrize("source", [POD6, "fd74:756c:6c65:2::5"])
def test_no_data_of_a_forged_first_segment_reaches_the_app(
    bed: Bed, pod: Pod, far: Pod, source: str
) -> None:
    with fast_server(pod) as app:
        with far.dial((POD6, PORT)):  # the far pod learns the way
            app.accept()[0].close()
        send_first_data(far, (source, 1024), (POD6, PORT), b"not captured")
        with app.accept()[0] as taken:
            assert taken.recv(99) == b"not captured"
        bed.capture(pod, "uid-app")
        bed.node.set_plaintext("uid-app", PlaintextRules(True, frozenset()))
        send_first_data(far, (source, 1025), (POD6, PORT), b"forged")
        eventually(lambda: bed.node.counters()["inbound_unvouched"] > 0, "refused")
        app.settimeout(0)
        with pytest.raises(BlockingIOError):
            app.accept()


def test_the_pod_itself_and_its_ztunnel_are_let_in(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    with fast_server(pod) as app:
        with pod.dial((POD6, PORT)):
            app.accept()[0].close()
        with bed.ztunnel.dial(pod, (POD6, PORT), option=client_option("2001:db8::7", 5123)):
            app.accept()[0].close()
    counters = bed.node.counters()
    assert counters["inbound_unvouched"] == 0
    assert all(use.used == 0 for use in bed.node.usage() if use.name == "vouched")
