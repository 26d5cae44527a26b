"""Errors: the codes of the RFC, and how each reaches the engine and the peer."""

from collections.abc import Callable

import h2.errors
import pytest

from tests.unit.ztunnel.hbone.pair import Pair, frames_of, server_ready
from ztunnel.hbone.errors import CannotOpen, ConnectionBroken, ErrorCode, OpenRefusal
from ztunnel.hbone.events import ConnectionFailed
from ztunnel.hbone.frames import GOAWAY, STREAM_ID_MAX, pack_frame, parse_goaway
from ztunnel.hbone.settings import SessionSettings


def test_the_codes_are_those_that_others_know() -> None:
    theirs = {code.name: int(code) for code in h2.errors.ErrorCodes}
    assert {code.name: int(code) for code in ErrorCode} == theirs


def test_a_broken_connection_shows_code_and_reason() -> None:
    broken = ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
    assert (broken.code, broken.reason) == (ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
    assert str(broken) == "FRAME_SIZE_ERROR: PING of a wrong size"


def test_the_engine_and_the_peer_are_given_the_same_reason() -> None:
    server = server_ready()
    assert server.receive(pack_frame(6, 0, 0, b"short")) == [
        ConnectionFailed(ErrorCode.FRAME_SIZE_ERROR, "PING of a wrong size")
    ]
    ((kind, _, _, payload),) = frames_of(server.outbound)
    assert kind == GOAWAY
    assert parse_goaway(payload) == (0, ErrorCode.FRAME_SIZE_ERROR)
    assert payload[8:] == b"PING of a wrong size"


def in_use(pair: Pair) -> None:
    pair.client.request("web:80", [])


def out_of_ids(pair: Pair) -> None:
    pair.client.next_id = STREAM_ID_MAX + 2


REFUSALS: dict[OpenRefusal, Callable[[Pair], None]] = {
    OpenRefusal.CLOSED: lambda pair: pair.client.close(),
    OpenRefusal.DRAINING: lambda pair: pair.client.goaway(ErrorCode.NO_ERROR, drain=True),
    OpenRefusal.STREAMS_IN_USE: in_use,
    OpenRefusal.IDS_EXHAUSTED: out_of_ids,
}


@pytest.mark.parametrize("refusal", OpenRefusal)
def test_a_stream_that_cannot_be_opened_is_refused_with_its_reason(refusal: OpenRefusal) -> None:
    pair = Pair(server_settings=SessionSettings(max_concurrent_streams=1))
    assert pair.client.can_open
    REFUSALS[refusal](pair)
    assert not pair.client.can_open
    pair.client.take()
    with pytest.raises(CannotOpen) as cannot:
        pair.client.request("web:80", [])
    assert cannot.value.refusal is refusal
    assert str(cannot.value) == refusal.value
    assert not pair.client.outbound, "nothing has been said"
