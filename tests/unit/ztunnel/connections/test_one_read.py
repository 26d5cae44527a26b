"""All that a peer may say in one read is handled in order and raises nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tests.support.certificates import Authority, make_authority
from tests.support.engine.inbound_rig import InboundRig
from tests.unit.ztunnel.connections.test_second_try import Peer, Rig
from ztunnel.hbone.errors import ErrorCode
from ztunnel.hbone.frames import (
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    pack_frame,
)

STREAM = 1
OVERFLOW = (2**31 - 1).to_bytes(4, "big")
OK, DENIED = b"\x88", b"\x08\x03401"  # :status 200, :status 401


def code(number: int) -> bytes:
    return int(number).to_bytes(4, "big")


SAID = {
    "200": pack_frame(HEADERS, END_HEADERS, STREAM, OK),
    "200, the end": pack_frame(HEADERS, END_HEADERS | END_STREAM, STREAM, OK),
    "401": pack_frame(HEADERS, END_HEADERS | END_STREAM, STREAM, DENIED),
    "data": pack_frame(DATA, 0, STREAM, b"hello"),
    "last data": pack_frame(DATA, END_STREAM, STREAM, b"bye"),
    "the end": pack_frame(DATA, END_STREAM, STREAM, b""),
    "refused": pack_frame(RST_STREAM, 0, STREAM, code(ErrorCode.REFUSED_STREAM)),
    "reset": pack_frame(RST_STREAM, 0, STREAM, code(ErrorCode.CANCEL)),
    "done": pack_frame(RST_STREAM, 0, STREAM, code(ErrorCode.NO_ERROR)),
    "goaway before it": pack_frame(GOAWAY, 0, 0, code(0) + code(0)),
    "goaway behind it": pack_frame(GOAWAY, 0, 0, code(STREAM) + code(0)),
    "goaway, an error": pack_frame(GOAWAY, 0, 0, code(0) + code(ErrorCode.ENHANCE_YOUR_CALM)),
    "stream overflow": pack_frame(WINDOW_UPDATE, 0, STREAM, OVERFLOW),
    "overflow": pack_frame(WINDOW_UPDATE, 0, 0, OVERFLOW),
    "empty window": pack_frame(WINDOW_UPDATE, 0, STREAM, code(0)),
    "window shut": pack_frame(SETTINGS, 0, 0, b"\x00\x04" + code(0)),
    "window too large": pack_frame(SETTINGS, 0, 0, b"\x00\x04" + code(2**31)),
    "ping": pack_frame(PING, 0, 0, b"12345678"),
    "nonsense": pack_frame(DATA, 0, 0, b"x"),
}
# None of these leaves a stream that could go on.
ENDS = {
    *("refused", "reset", "done", "goaway before it", "goaway, an error"),
    *("stream overflow", "overflow", "empty window", "window too large", "nonsense"),
}
APP = ("silent", "speaks", "speaks and ends", "ends", "resets")


@pytest.fixture(scope="module")
def authority() -> Authority:
    return make_authority()


@pytest.fixture
def rig(authority: Authority) -> Iterator[Rig]:
    yield from made(authority)


def made(authority: Authority) -> Iterator[Rig]:
    rig = Rig(authority)
    try:
        yield rig
    finally:
        rig.engine.remove_pod("client")
        for sock in rig.apps:
            sock.close()
        rig.settle()
        rig.reactor.close()
        assert not rig.bugs


def say(rig: Rig, peer: Peer, *words: str) -> None:
    """All of it in one TLS record, so in one read."""
    peer.tunnel.session.outbound += b"".join(SAID[each] for each in words)
    peer.tunnel.touch()
    rig.settle()


def act(app: socket.socket, how: str) -> None:
    if how.startswith("speaks"):
        app.send(b"q" * 100_000)
    if how.endswith("ends"):
        app.shutdown(socket.SHUT_WR)
    if how == "resets":
        app.close()


@pytest.mark.parametrize("how", APP)
@pytest.mark.parametrize("then", [each for each in SAID if not each.startswith(("2", "4"))])
@pytest.mark.parametrize("first", ["200", "200, the end", "401"])
def test_an_answer_and_one_more_frame(rig: Rig, how: str, then: str, first: str) -> None:
    app = rig.accept()
    peer = rig.connect()
    act(app, how)
    say(rig, peer, first, then)
    rig.pass_s(1)
    assert not rig.bugs
    if then in ENDS:
        assert rig.engine.connections == 0


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    words=st.lists(st.sampled_from(sorted(SAID)), min_size=1, max_size=6),
    cut=st.integers(0, 6),
    how=st.sampled_from(APP),
)
def test_any_sequence_in_one_read_or_two(
    authority: Authority, words: list[str], cut: int, how: str
) -> None:
    for rig in made(authority):
        app = rig.accept()
        peer = rig.connect()
        act(app, how)
        for part in (words[:cut], words[cut:]):
            if part and not peer.tunnel.closed:
                say(rig, peer, *part)
        rig.pass_s(1)
        assert not rig.bugs


# -- the other side: requests ------------------------------------------------------------------

ASKED = (
    b"\x02\x07CONNECT"  # :method, by the index of its name
    b"\x01\x0d10.0.0.2:8080"  # :authority
)
ASKS = {
    **SAID,
    "connect": pack_frame(HEADERS, END_HEADERS, STREAM, ASKED),
    "connect, the end": pack_frame(HEADERS, END_HEADERS | END_STREAM, STREAM, ASKED),
    "another": pack_frame(HEADERS, END_HEADERS, STREAM + 2, ASKED),
    "get": pack_frame(HEADERS, END_HEADERS, STREAM, b"\x82\x84\x87\x01\x01x"),
}


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(
    words=st.lists(st.sampled_from(sorted(ASKS)), max_size=6),
    cut=st.integers(0, 7),
    fate=st.sampled_from(["answers", "refuses", "waits"]),
    how=st.sampled_from(APP),
)
@example(words=["reset"], cut=7, fate="answers", how="speaks")
@example(words=["goaway, an error", "nonsense"], cut=7, fate="answers", how="speaks and ends")
def test_any_request_and_more_in_one_read_or_two(
    authority: Authority, words: list[str], cut: int, fate: str, how: str
) -> None:
    rig = InboundRig(authority)
    rig.certify()
    tunnel = rig.tunnel()
    said = ["connect", *words]
    for part in (said[:cut], said[cut:]):
        if part and not tunnel.closed:
            tunnel.session.outbound += b"".join(ASKS[each] for each in part)
            tunnel.touch()
            rig.settle()
        while rig.dialer.is_dialling:
            if fate == "waits":
                break
            if fate == "refuses":
                rig.dialer.fail()
            else:
                app = rig.dialer.answer()
                act(app, how)
                rig.apps.append(app)
            rig.settle()
    assert rig.dialer.permits, "the first request was taken"
    rig.close()
