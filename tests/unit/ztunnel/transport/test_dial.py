"""Connecting without blocking: answers, refusals, deadlines; and where sockets are made."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from control.kit.errors import KernelError
from control.model.address import Endpoint, parse_address, parse_endpoint
from control.model.policy import Connection, Permit, decide
from tests.support.engine.tunnel_memory import FakeTime
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.transport.dial import CONNECT_S, SOURCES_TRIED_MAX, Dialer, DialError, Namespaces
from ztunnel.transport.sockets import end_handshake

Result = socket.socket | DialError


SHOWN = parse_endpoint("10.0.0.1:5000")


def permit(target: Endpoint) -> Permit:
    """The yes of a workload that no policy restricts."""
    verdict = decide((), Connection(None, SHOWN.address, target.address, target.port))
    assert isinstance(verdict, Permit)
    return verdict


class Rig:
    def __init__(self) -> None:
        self.time = FakeTime()
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append, self.time)
        self.dialer = Dialer(self.reactor)
        self.results: list[Result] = []


@pytest.fixture
def rig() -> Iterator[Rig]:
    made = Rig()
    yield made
    for result in made.results:
        if not isinstance(result, DialError):
            result.close()
    made.reactor.close()
    assert not made.bugs


def test_a_listening_port_gives_a_connected_socket(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = parse_endpoint(f"127.0.0.1:{listener.getsockname()[1]}")
        rig.dialer.dial(-1, target, rig.results.append)
        rig.reactor.turn(5)
        (sock,) = rig.results
        assert not isinstance(sock, DialError)
        assert sock.getpeername() == listener.getsockname()
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@pytest.mark.parametrize("address", ["127.0.0.1:9", "[::1]:9"])
def test_a_closed_port_is_said_to_refuse(rig: Rig, address: str) -> None:
    rig.dialer.dial(-1, parse_endpoint(address), rig.results.append)
    if not rig.results:
        rig.reactor.turn(5)
    assert rig.results == [DialError.REFUSED]
    rig.reactor.turn(0)
    assert rig.reactor._handlers == {}


def silent() -> socket.socket:
    """A port whose queue is full: a SYN there is not answered."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    return listener


def test_a_silent_host_is_given_up_at_the_deadline(rig: Rig) -> None:
    with silent() as listener:
        where = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(where)
        rig.dialer.dial(-1, parse_endpoint(f"127.0.0.1:{where[1]}"), rig.results.append)
        rig.reactor.turn(0)
        assert rig.results == []
        rig.time.now_s += CONNECT_S
        rig.reactor.turn(0)
        assert rig.results == [DialError.TIMEOUT]
        for filler in fillers:
            filler.close()


def test_an_abandoned_dial_says_nothing(rig: Rig) -> None:
    with silent() as listener:
        target = parse_endpoint(f"127.0.0.1:{listener.getsockname()[1]}")
        dial = rig.dialer.dial(-1, target, rig.results.append)
        if dial is not None:
            dial.abandon()
        rig.time.now_s += CONNECT_S * 2
        rig.reactor.turn(0)
        assert rig.results == []
        assert rig.reactor._handlers == {}


def test_an_app_of_this_host_is_there_at_once(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = parse_endpoint(f"127.0.0.1:{listener.getsockname()[1]}")
        assert rig.dialer.dial_app(-1, permit(target), rig.results.append, SHOWN) is None
        assert not isinstance(rig.results[0], DialError)
        assert rig.reactor._handlers == {}


def test_an_app_that_does_not_answer_is_waited_for(rig: Rig) -> None:
    with silent() as listener:
        where = listener.getsockname()
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(where)
        target = parse_endpoint(f"127.0.0.1:{where[1]}")
        assert rig.dialer.dial_app(-1, permit(target), rig.results.append, SHOWN) is not None
        assert rig.results == []
        rig.time.now_s += CONNECT_S
        rig.reactor.turn(0)
        assert rig.results == [DialError.TIMEOUT]
        for filler in fillers:
            filler.close()


def test_without_the_kernel_half_the_client_is_not_shown_and_that_is_counted(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        target = parse_endpoint(f"127.0.0.1:{listener.getsockname()[1]}")
        rig.dialer.dial_app(-1, permit(target), rig.results.append, SHOWN)
        if not rig.results:
            rig.reactor.turn(5)
        assert not isinstance(rig.results[0], DialError)
        assert rig.dialer.source_not_shown == 1


def test_a_descriptor_that_is_no_namespace_is_refused(rig: Rig) -> None:
    descriptor = os.open("/dev/null", os.O_RDONLY)
    with pytest.raises(KernelError):
        Namespaces().enter(descriptor)
    rig.dialer.dial(descriptor, parse_endpoint("127.0.0.1:9"), rig.results.append)
    assert rig.results == [DialError.NAMESPACE]
    os.close(descriptor)


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("by", ["data", "end_handshake", "end of data"])
def test_a_patient_dial_is_heard_of_with_its_first_bytes(rig: Rig, address: str, by: str) -> None:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        target = Endpoint(parse_address(address), listener.getsockname()[1])
        rig.dialer.dial_app(-1, permit(target), rig.results.append, SHOWN, patient=True)
        (sock,) = rig.results
        assert not isinstance(sock, DialError)
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        if by == "data":
            sock.send(b"hello")
        elif by == "end_handshake":
            end_handshake(sock)
        else:
            sock.shutdown(socket.SHUT_WR)
        accepted, _ = listener.accept()
        with accepted:
            accepted.setblocking(False)
            if by == "end_handshake":
                sock.send(b"hello")
            assert accepted.recv(10) == (b"" if by == "end of data" else b"hello")


@pytest.mark.parametrize("draws", [1, SOURCES_TRIED_MAX - 1, SOURCES_TRIED_MAX])
def test_a_source_that_is_in_use_is_drawn_again_a_few_times(rig: Rig, draws: int) -> None:
    taken = []  # sources that are in use, drawn one after the other

    def draw(sock: socket.socket) -> None:
        if taken:
            sock.bind(taken.pop())

    dialer = Dialer(rig.reactor, draw)
    with socket.create_server(("127.0.0.1", 0)) as listener, socket.socket() as first:
        where = listener.getsockname()
        first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        first.bind(("127.0.0.1", 0))  # a port that connect() chooses is not always shared
        first.connect(where)
        taken += [first.getsockname()] * draws
        target = parse_endpoint(f"127.0.0.1:{where[1]}")
        assert dialer.dial_app(-1, permit(target), rig.results.append, SHOWN) is None
    if draws < SOURCES_TRIED_MAX:
        assert not isinstance(rig.results[0], DialError)
        rig.results[0].close()
    else:
        assert rig.results == [DialError.NO_PORTS]
