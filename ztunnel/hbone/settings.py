"""SETTINGS of both sides: ours as a value, the peer's as checked state."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from ztunnel.hbone.errors import ConnectionBroken, ErrorCode
from ztunnel.hbone.frames import (
    FRAME_BYTES_DEFAULT,
    FRAME_BYTES_MAX,
    HEADER_TABLE_DEFAULT,
    STREAM_ID_MAX,
    WINDOW_DEFAULT,
    WINDOW_MAX,
    Setting,
    parse_settings,
)

KIB: Final = 1024
MIB: Final = 1024 * KIB

# Streams that we open before the peer has said how many it allows (RFC 9113 asks for 100 or more).
STREAMS_BEFORE_SETTINGS: Final = 100


class Role(Enum):
    """Our side of a connection."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class SessionSettings:
    """Our side's promises. `initial_window_bytes` bounds the memory of each stream."""

    initial_window_bytes: int = 4 * MIB
    connection_window_bytes: int = 16 * MIB
    max_frame_bytes: int = MIB
    header_list_bytes: int = 16 * KIB
    max_concurrent_streams: int | None = None
    header_table_bytes: int = HEADER_TABLE_DEFAULT

    def __post_init__(self) -> None:
        if not 0 < self.initial_window_bytes <= WINDOW_MAX:
            raise ValueError("initial_window_bytes out of range")
        if not 0 < self.connection_window_bytes <= WINDOW_MAX:
            raise ValueError("connection_window_bytes out of range")
        if not FRAME_BYTES_DEFAULT <= self.max_frame_bytes <= FRAME_BYTES_MAX:
            raise ValueError("max_frame_bytes out of range")

    def announced(self, role: Role) -> list[tuple[int, int]]:
        """Pairs to send in SETTINGS, without those that would repeat HTTP/2's defaults."""
        settings: list[tuple[int, int]] = []
        if role is Role.CLIENT:
            settings.append((Setting.ENABLE_PUSH, 0))
        elif self.max_concurrent_streams is not None:
            settings.append((Setting.MAX_CONCURRENT_STREAMS, self.max_concurrent_streams))
        if self.header_table_bytes != HEADER_TABLE_DEFAULT:
            settings.append((Setting.HEADER_TABLE_SIZE, self.header_table_bytes))
        settings.append((Setting.INITIAL_WINDOW_SIZE, self.initial_window_bytes))
        settings.append((Setting.MAX_FRAME_SIZE, self.max_frame_bytes))
        settings.append((Setting.MAX_HEADER_LIST_SIZE, self.header_list_bytes))
        return settings


CLIENT_SETTINGS: Final = SessionSettings()
SERVER_SETTINGS: Final = SessionSettings(header_list_bytes=64 * KIB, max_concurrent_streams=200)


class PeerSettings:
    """The peer's values that we obey. Checks them as they come."""

    __slots__ = (
        "header_table_bytes",
        "header_table_least",
        "initial_window_bytes",
        "max_frame_bytes",
        "max_streams",
    )

    def __init__(self) -> None:
        self.header_table_bytes = HEADER_TABLE_DEFAULT
        # The smallest value in the last frame: 0, then 4,096, asks for an empty table.
        self.header_table_least = HEADER_TABLE_DEFAULT
        self.initial_window_bytes = WINDOW_DEFAULT
        self.max_frame_bytes = FRAME_BYTES_DEFAULT
        self.max_streams = STREAMS_BEFORE_SETTINGS

    def first(self) -> None:
        """Lift the limit of streams: the first SETTINGS frame has come, and may set another."""
        self.max_streams = STREAM_ID_MAX

    def apply(self, payload: bytes, our_role: Role) -> None:
        """Take over the values of a SETTINGS frame. Raises ConnectionBroken for a bad one."""
        self.header_table_least = self.header_table_bytes
        for setting, value in parse_settings(payload):
            match setting:
                case Setting.HEADER_TABLE_SIZE:
                    self.header_table_bytes = value
                    self.header_table_least = min(self.header_table_least, value)
                case Setting.ENABLE_PUSH:
                    if value > 1 or (value and our_role is Role.CLIENT):
                        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "bad ENABLE_PUSH")
                case Setting.MAX_CONCURRENT_STREAMS:
                    self.max_streams = value
                case Setting.INITIAL_WINDOW_SIZE:
                    if value > WINDOW_MAX:
                        raise ConnectionBroken(
                            ErrorCode.FLOW_CONTROL_ERROR, "bad INITIAL_WINDOW_SIZE"
                        )
                    self.initial_window_bytes = value
                case Setting.MAX_FRAME_SIZE:
                    if not FRAME_BYTES_DEFAULT <= value <= FRAME_BYTES_MAX:
                        raise ConnectionBroken(ErrorCode.PROTOCOL_ERROR, "bad MAX_FRAME_SIZE")
                    self.max_frame_bytes = value
                case Setting.ENABLE_CONNECT_PROTOCOL:
                    if value > 1:
                        raise ConnectionBroken(
                            ErrorCode.PROTOCOL_ERROR, "bad ENABLE_CONNECT_PROTOCOL"
                        )
                case _:
                    pass  # unknown ones must be ignored; a header list limit is only advice
