import pytest

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.frames import Setting, pack_settings
from ztunnel.hbone.settings import (
    CLIENT_SETTINGS,
    SERVER_SETTINGS,
    PeerSettings,
    Role,
    SessionSettings,
)


def test_the_values_on_the_wire_are_those_of_istio() -> None:
    assert dict(CLIENT_SETTINGS.announced(Role.CLIENT)) == {
        Setting.ENABLE_PUSH: 0,
        Setting.INITIAL_WINDOW_SIZE: 4 << 20,
        Setting.MAX_FRAME_SIZE: 1 << 20,
        Setting.MAX_HEADER_LIST_SIZE: 16 << 10,
    }
    assert dict(SERVER_SETTINGS.announced(Role.SERVER)) == {
        Setting.MAX_CONCURRENT_STREAMS: 200,
        Setting.INITIAL_WINDOW_SIZE: 4 << 20,
        Setting.MAX_FRAME_SIZE: 1 << 20,
        Setting.MAX_HEADER_LIST_SIZE: 64 << 10,
    }
    assert CLIENT_SETTINGS.connection_window_bytes == 16 << 20


@pytest.mark.parametrize(
    "wrong",
    [
        {"initial_window_bytes": 0},
        {"initial_window_bytes": 1 << 31},
        {"connection_window_bytes": 1 << 31},
        {"max_frame_bytes": 16_383},
        {"max_frame_bytes": 1 << 24},
    ],
)
def test_settings_that_http2_cannot_announce_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError):
        SessionSettings(**wrong)


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        (Setting.ENABLE_PUSH, 2, ErrorCode.PROTOCOL_ERROR),
        (Setting.ENABLE_PUSH, 1, ErrorCode.PROTOCOL_ERROR),
        (Setting.INITIAL_WINDOW_SIZE, 1 << 31, ErrorCode.FLOW_CONTROL_ERROR),
        (Setting.MAX_FRAME_SIZE, 16_383, ErrorCode.PROTOCOL_ERROR),
        (Setting.MAX_FRAME_SIZE, 1 << 24, ErrorCode.PROTOCOL_ERROR),
        (Setting.ENABLE_CONNECT_PROTOCOL, 2, ErrorCode.PROTOCOL_ERROR),
    ],
)
def test_a_value_out_of_range_breaks_the_connection(
    setting: int, value: int, code: ErrorCode
) -> None:
    with pytest.raises(ConnectionBroken) as broken:
        PeerSettings().apply(pack_settings([(setting, value)])[9:], Role.CLIENT)
    assert broken.value.code is code


def test_a_hundred_streams_until_the_peer_speaks_then_what_it_says() -> None:
    peer = PeerSettings()
    assert peer.max_streams == 100
    peer.first()
    assert peer.max_streams > 1 << 30
    peer.apply(pack_settings([(Setting.MAX_CONCURRENT_STREAMS, 7), (0xFFFF, 1)])[9:], Role.CLIENT)
    assert peer.max_streams == 7
