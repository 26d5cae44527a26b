"""Sockets of a pod are made in its network namespace, and leaving frees it. Needs root."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from control.model.address import parse_endpoint
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor
from ztunnel.transport.dial import Dialer, DialError

DEADLINE_S = 10.0
SERVER = """
import socket, sys
sock = socket.create_server(("127.0.0.1", 0))
print(sock.getsockname()[1], flush=True)
sys.stdin.read()
"""


class PodProcess:
    """A process alone in a namespace, with a server on its loopback."""

    def __init__(self) -> None:
        inside = ["sh", "-c", 'ip link set lo up && exec "$0" -c "$1"', "python3", SERVER]
        self.process = subprocess.Popen(
            ["unshare", "--net", *inside], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())
        self.netns = os.open(f"/proc/{self.process.pid}/ns/net", os.O_RDONLY)

    def close(self) -> None:
        self.process.communicate(timeout=DEADLINE_S)
        os.close(self.netns)


@pytest.fixture
def pod() -> Iterator[PodProcess]:
    if os.geteuid() != 0:
        assert not os.environ.get("CI"), "this test needs root"
        pytest.skip("needs root")
    made = PodProcess()
    yield made
    made.close()


def dial(dialer: Dialer, reactor: Reactor, netns: int, port: int) -> socket.socket | DialError:
    results: list[socket.socket | DialError] = []
    dialer.dial(netns, parse_endpoint(f"127.0.0.1:{port}"), results.append)
    end = time.monotonic() + DEADLINE_S
    while not results and time.monotonic() < end:
        reactor.turn(0.1)
    return results[0]


def test_a_dial_happens_in_the_pods_namespace_and_leaving_goes_home(pod: PodProcess) -> None:
    reactor = Reactor(lambda _: None, FakeTime())
    dialer = Dialer(reactor)
    home = os.stat("/proc/self/ns/net").st_ino
    assert dial(dialer, reactor, -1, pod.port) is DialError.REFUSED
    inside = dial(dialer, reactor, pod.netns, pod.port)
    assert not isinstance(inside, DialError)
    assert os.stat("/proc/thread-self/ns/net").st_ino != home
    dialer.leave(pod.netns)
    assert os.stat("/proc/thread-self/ns/net").st_ino == home
    assert inside.getpeername()[1] == pod.port, "the socket stays where it was made"
    inside.close()
    reactor.close()
