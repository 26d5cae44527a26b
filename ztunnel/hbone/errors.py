"""Errors of an HTTP/2 connection, by whose fault they are. Decides nothing."""

from enum import Enum, IntEnum


class ErrorCode(IntEnum):
    """Codes of RFC 9113 section 7. A peer may send others, so events carry plain integers."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class ConnectionBroken(Exception):
    """The peer broke the connection's rules. Never leaves `Session.receive`."""

    def __init__(self, code: ErrorCode, reason: str) -> None:
        super().__init__(f"{code.name}: {reason}")
        self.code = code
        self.reason = reason


class OpenRefusal(Enum):
    """The reason why no further stream can be opened on this connection."""

    CLOSED = "the connection has failed"
    DRAINING = "the connection is draining"
    STREAMS_IN_USE = "the peer's limit of concurrent streams is reached"
    IDS_EXHAUSTED = "no stream id is left"


class CannotOpen(Exception):
    """Not a fault: the caller dials another connection."""

    def __init__(self, refusal: OpenRefusal) -> None:
        super().__init__(refusal.value)
        self.refusal = refusal
