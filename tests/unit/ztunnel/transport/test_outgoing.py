"""The output of a tunnel: gathered in a turn, sent once, bounded by what the kernel takes."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest

from tests.support.certificates import Authority
from tests.support.engine.tunnel_memory import CLIENT, SERVER
from ztunnel.hbone.session import Session
from ztunnel.hbone.settings import CLIENT_SETTINGS, Role
from ztunnel.loop.reactor import Reactor
from ztunnel.loop.served import Served
from ztunnel.transport.outgoing import Outgoing
from ztunnel.transport.tls import (
    TlsClosed,
    TlsConnection,
    TlsContext,
    TlsError,
    expect_one_of,
    expect_trust_domain,
)

LARGE = 300 * 1024


class Owner:
    def __init__(self) -> None:
        self.reasons: list[TlsError | OSError] = []

    def broken(self, why: TlsError | OSError) -> None:
        self.reasons.append(why)

    def on_bug(self) -> None:
        raise AssertionError


class Relay:
    def __init__(self) -> None:
        self.resumed = 0

    def on_again(self) -> None:
        self.resumed += 1

    def on_bug(self) -> None:
        raise AssertionError


class Rig:
    """A client's output, and its peer as a TLS connection behind a socket."""

    def __init__(self, authority: Authority) -> None:
        self.bugs: list[Served] = []
        self.reactor = Reactor(self.bugs.append)
        self.peer_socket, self.socket = socket.socketpair()
        for sock in (self.peer_socket, self.socket):
            sock.setblocking(False)
        ours, theirs = (TlsContext(authority.issue(str(who))) for who in (CLIENT, SERVER))
        self.tls = TlsConnection(ours, False, expect_one_of([SERVER]))
        self.peer = TlsConnection(theirs, True, expect_trust_domain(CLIENT.trust_domain))
        self.session = Session(Role.CLIENT, CLIENT_SETTINGS)
        self.owner = Owner()
        self.out = Outgoing(self.reactor, self.socket, self.tls, self.session, self.owner)

    def shake_hands(self) -> None:
        self.tls.handshake()
        for _ in range(2):
            if flight := self.tls.take():
                self.peer.feed(memoryview(flight))
                self.peer.handshake()
            if flight := self.peer.take():
                self.tls.feed(memoryview(flight))
                self.tls.handshake()
        self.out.open()

    def sends(self) -> list[int]:
        """Sizes of what the peer's socket holds, by read."""
        sizes = []
        try:
            while data := self.peer_socket.recv(1 << 20):
                self.peer.feed(memoryview(data))
                sizes.append(len(data))
        except BlockingIOError:
            pass
        return sizes

    def heard(self) -> bytes:
        """Everything that the peer has decrypted since the last time."""
        self.sends()
        into, data = memoryview(bytearray(1 << 20)), b""
        while self.peer.waiting:
            data += bytes(into[: self.peer.read_into(into)])
        return data


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    made = Rig(authority)
    made.shake_hands()
    yield made
    made.socket.close()
    made.peer_socket.close()
    made.reactor.close()
    assert not made.bugs


def test_the_output_of_a_turn_leaves_together_at_its_end(rig: Rig) -> None:
    for part in (b"one", b"two"):
        rig.session.outbound += part
        rig.out.touch()
    assert rig.sends() == []
    rig.reactor.turn(0)
    assert rig.heard() == b"onetwo"
    assert not rig.out.dirty


def test_nothing_of_the_session_leaves_before_the_handshake(authority: Authority) -> None:
    rig = Rig(authority)
    rig.session.outbound += b"early"
    rig.out.write_large(memoryview(b"frame"))
    rig.out.touch()
    rig.reactor.turn(0)
    assert rig.sends() == []
    rig.shake_hands()
    rig.out.touch()
    rig.reactor.turn(0)
    assert rig.heard() == b"earlyframe"


def test_a_large_frame_goes_at_once_behind_what_waits(rig: Rig) -> None:
    rig.session.outbound += b"before"
    frame = bytes(100_000)
    rig.out.write_large(memoryview(frame))
    assert rig.out.written_bytes == len(frame)
    assert rig.heard() == b"before" + frame
    rig.out.flush()
    assert rig.out.written_bytes == 0


def test_what_the_kernel_does_not_take_goes_first_later(rig: Rig) -> None:
    filler = bytes(LARGE)
    while not rig.out.unsent:
        rig.out.write_large(memoryview(filler))
    rig.out.write_large(memoryview(b"behind"))
    assert bytes(rig.session.outbound) == b"behind", "it waits its turn"
    data = b""
    for _ in range(100):
        data += rig.heard()
        rig.out.flush()
        if not rig.out.unsent and not rig.session.outbound:
            break
    assert (data + rig.heard()).endswith(filler + b"behind")


def test_relays_wait_for_room_and_those_with_a_share_come_last(rig: Rig) -> None:
    order: list[str] = []

    class Named(Relay):
        def __init__(self, name: str) -> None:
            super().__init__()
            self.name = name

        def on_again(self) -> None:
            order.append(self.name)

    rig.out.wait_for_room(Named("had its share"), had_share=True)
    rig.out.wait_for_room(Named("had none"), had_share=False)
    assert rig.out.contended
    rig.out.flush()
    rig.reactor.turn(0)
    assert order == ["had none", "had its share"]
    rig.out.flush()
    assert not rig.out.contended


def test_nobody_waits_for_a_window_that_is_open(rig: Rig) -> None:
    relay = Relay()
    assert not rig.out.wait_for_window(relay, had_share=False)
    rig.session.send_window = 0
    assert rig.out.wait_for_window(relay, had_share=False)
    rig.out.flush()
    rig.reactor.turn(0)
    assert relay.resumed == 0, "room alone does not help"
    rig.out.window_opened()
    rig.reactor.turn(0)
    assert relay.resumed == 1


def test_a_socket_that_is_gone_breaks_it_once(rig: Rig) -> None:
    rig.peer_socket.close()
    rig.session.outbound += b"x"
    rig.out.touch()
    rig.reactor.turn(0)
    (why,) = rig.owner.reasons
    assert isinstance(why, OSError)


def test_after_the_end_nothing_is_sent_and_nobody_is_told(rig: Rig) -> None:
    relay = Relay()
    rig.out.wait_for_room(relay, had_share=False)
    rig.session.outbound += b"x"
    rig.out.touch()
    rig.out.close()
    rig.peer_socket.close()
    rig.reactor.turn(0)
    rig.reactor.turn(0)
    assert rig.owner.reasons == []
    assert relay.resumed == 0


def test_the_goodbye_is_a_goaway_and_the_end_of_tls(rig: Rig) -> None:
    rig.out.say_goodbye()
    assert rig.session.goaway_sent
    with pytest.raises(TlsClosed):
        rig.heard()
    assert rig.owner.reasons == []


def test_a_goodbye_that_nobody_hears_is_no_failure(rig: Rig) -> None:
    rig.peer_socket.close()
    rig.out.say_goodbye()
    assert rig.owner.reasons == []
