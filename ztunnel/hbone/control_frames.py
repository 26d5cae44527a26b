"""Effects of the frames that carry neither data nor headers. All raise ConnectionBroken."""

from collections.abc import Callable
from typing import Final

from ztunnel.hbone.core import Core, pack_ack
from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.events import (
    Event,
    GoAwayReceived,
    PeerSettingsChanged,
    PingAcknowledged,
    StreamReset,
    WindowOpened,
)
from ztunnel.hbone.frames import (
    ACK,
    GOAWAY,
    PING,
    PING_BYTES,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_ID_MASK,
    WINDOW_MAX,
    WINDOW_UPDATE,
    depends_on,
    parse_goaway,
    parse_uint32,
)
from ztunnel.hbone.limits import FRAME_COST, RESET_COST, SETTINGS_COST
from ztunnel.hbone.settings import Role

Handler = Callable[[Core, int, int, bytes, list[Event]], None]


def _check(size_ok: bool, stream_ok: bool, name: str) -> None:
    """Raise ConnectionBroken for a frame on a wrong stream or of a wrong size."""
    if not stream_ok:
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, f"{name} on a wrong stream")
    if not size_ok:
        raise ConnectionBroken(ErrorCode.FRAME_SIZE_ERROR, f"{name} of a wrong size")


def on_settings(
    core: Core, flags: int, stream_id: int, payload: bytes, events: list[Event]
) -> None:
    """Obey the peer's values and acknowledge them; or note that it acknowledges ours."""
    is_ack = bool(flags & ACK)
    _check(not payload if is_ack else len(payload) % 6 == 0, stream_id == 0, "SETTINGS")
    if is_ack:
        core.spend(FRAME_COST, "SETTINGS acknowledgements")
        if not core.settings_acknowledged:
            _settings_acknowledged(core)
        return
    if core.peer_ready:
        core.allowance.charge(SETTINGS_COST, "SETTINGS")
    else:
        core.peer_ready = True
        core.peer.first()
    before = core.peer.initial_window_bytes
    core.peer.apply(payload, core.role)
    core.frame_bytes_max = core.peer.max_frame_bytes
    core.codec.limit_encoder(core.peer.header_table_least)
    core.codec.limit_encoder(core.peer.header_table_bytes)
    core.reply(pack_ack(SETTINGS))
    events.append(PeerSettingsChanged())
    _shift_send_windows(core, core.peer.initial_window_bytes - before, events)


def _shift_send_windows(core: Core, shift: int, events: list[Event]) -> None:
    if not shift:
        return
    for stream in core.streams.values():
        window = stream.send_window + shift
        if window > WINDOW_MAX:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "stream window overflow")
        opened = stream.send_window <= 0 < window
        stream.send_window = window
        if opened:
            events.append(WindowOpened(stream))


def _settings_acknowledged(core: Core) -> None:
    """Apply our own SETTINGS: from now on the peer keeps to them, even below the defaults."""
    core.settings_acknowledged = True
    core.codec.settings_acknowledged()
    shift = core.settings.initial_window_bytes - core.stream_window_bytes
    if shift:
        core.stream_window_bytes += shift
        for stream in core.streams.values():
            stream.receive_window += shift  # may go below zero, as RFC 9113 6.9.2 says


def on_ping(core: Core, flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
    """Answer a PING, or report the answer to ours."""
    _check(len(payload) == PING_BYTES, stream_id == 0, "PING")
    core.spend(FRAME_COST, "PINGs")
    if flags & ACK:
        events.append(PingAcknowledged(payload))
    else:
        core.reply(pack_ack(PING, payload))


def on_rst_stream(
    core: Core, _flags: int, stream_id: int, payload: bytes, events: list[Event]
) -> None:
    """Close the stream. Early ones, before the answer, are charged: that is rapid reset."""
    _check(len(payload) == 4, not core.is_idle(stream_id), "RST_STREAM")
    stream = core.streams.get(stream_id)
    if stream is None:
        core.spend(FRAME_COST, "RST_STREAM on closed streams")
        return
    early = core.role is Role.SERVER and not stream.state.answered
    core.drop(stream)
    events.append(StreamReset(stream, parse_uint32(payload)))
    if early:  # otherwise our request or our answer has paid for it
        core.allowance.charge(RESET_COST, "reset streams")


def on_window_update(
    core: Core, _flags: int, stream_id: int, payload: bytes, events: list[Event]
) -> None:
    """Open a send window further; tell the engine when it was closed."""
    _check(len(payload) == 4, stream_id == 0 or not core.is_idle(stream_id), "WINDOW_UPDATE")
    core.spend(FRAME_COST, "WINDOW_UPDATEs")
    increment = parse_uint32(payload) & STREAM_ID_MASK
    if stream_id == 0:
        if not increment:
            raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "empty WINDOW_UPDATE")
        if core.send_window + increment > WINDOW_MAX:
            raise ConnectionBroken(ErrorCode.FLOW_CONTROL_ERROR, "connection window overflow")
        if core.send_window <= 0:
            events.append(WindowOpened(None))
        core.send_window += increment
        core.send_granted += increment
        return
    stream = core.streams.get(stream_id)
    if stream is None:
        return
    if not increment:
        core.break_stream(stream, ErrorCode.PROTOCOL_ERROR, events)
    elif stream.send_window + increment > WINDOW_MAX:
        core.break_stream(stream, ErrorCode.FLOW_CONTROL_ERROR, events)
    else:
        opened = stream.send_window <= 0 < stream.send_window + increment
        stream.send_window += increment
        if opened:
            events.append(WindowOpened(stream))


def on_goaway(core: Core, _flags: int, stream_id: int, payload: bytes, events: list[Event]) -> None:
    """Open no more streams, and drop those of ours that the peer says it has not served."""
    _check(len(payload) >= 8, stream_id == 0, "GOAWAY")
    core.spend(FRAME_COST, "GOAWAYs")
    last_stream_id, code = parse_goaway(payload)
    core.goaway_received = True
    events.append(GoAwayReceived(last_stream_id, code))
    if core.role is Role.SERVER:
        return  # it numbers streams that a server opens: there are none
    for stream in [s for s in core.streams.values() if s.id > last_stream_id]:
        core.drop(stream)
        core.remember_reset(stream.id)
        events.append(StreamReset(stream, ErrorCode.REFUSED_STREAM))


def on_priority(
    core: Core, _flags: int, stream_id: int, payload: bytes, _events: list[Event]
) -> None:
    """Ignore it: RFC 9113 has no priorities any more. It must make sense, though."""
    _check(len(payload) == 5, stream_id != 0, "PRIORITY")
    core.spend(FRAME_COST, "PRIORITY frames")
    if depends_on(payload) == stream_id:
        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "a stream that depends on itself")


def on_push_promise(
    _core: Core, _flags: int, _stream_id: int, _payload: bytes, _events: list[Event]
) -> None:
    """Refuse it: a client says so in its SETTINGS, and nobody pushes to a server."""
    raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE is switched off")


HANDLERS: Final[dict[int, Handler]] = {
    PRIORITY: on_priority,
    RST_STREAM: on_rst_stream,
    SETTINGS: on_settings,
    PUSH_PROMISE: on_push_promise,
    PING: on_ping,
    GOAWAY: on_goaway,
    WINDOW_UPDATE: on_window_update,
}
