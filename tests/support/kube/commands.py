"""Commands in containers, as pods/exec answers them: a websocket in v4.channel.k8s.io, where each
frame's first byte is its channel and the last frame is a Status."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

from tests.support.kube.faults import Request
from tests.support.kube.status import ApiRefusal, refusal

_GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_BINARY, _CLOSE = 0x82, 0x88
_STDOUT, _STDERR, _END = b"\x01", b"\x02", b"\x03"
FRAME_BYTES = 32 * 1024


@dataclass(frozen=True, slots=True)
class Command:
    namespace: str
    pod: str
    container: str
    words: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Result:
    """`lost`: the connection ends without a last frame."""

    code: int = 0
    output: bytes = b""
    errors: bytes = b""
    lost: bool = False


Commands = Callable[[Command], Result]


def is_command(request: Request) -> bool:
    return request.path.endswith("/exec") and "/pods/" in request.path


def run_command(commands: Commands, request: Request) -> bytes | ApiRefusal:
    """The whole answer, head and frames; a refusal is an answer without a websocket."""
    parts = request.path.strip("/").split("/")
    if request.headers.get("upgrade", "").lower() != "websocket":
        return refusal(400, "BadRequest", "you must specify at least 1 of stdin, stdout, stderr")
    command = Command(parts[3], parts[5], request.params.get("container", ""), request.words)
    try:
        result = commands(command)
    except ApiRefusal as exc:
        return exc
    key = request.headers["sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1((key + _GUID).encode()).digest()).decode()
    head = (
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Accept: {accept}\r\nSec-WebSocket-Protocol: v4.channel.k8s.io\r\n\r\n"
    )
    return head.encode() + b"".join(_frames(result))


def _frames(result: Result) -> list[bytes]:
    frames = [_frame(channel + b"") for channel in (_STDOUT, _STDERR)]  # as the kubelet begins
    for channel, data in ((_STDOUT, result.output), (_STDERR, result.errors)):
        pieces = range(0, len(data), FRAME_BYTES)
        frames += [_frame(channel + data[at : at + FRAME_BYTES]) for at in pieces]
    if result.lost:
        return frames
    frames.append(_frame(_END + json.dumps(_status(result.code)).encode()))
    return [*frames, bytes([_CLOSE, 2, 3, 232])]


def _status(code: int) -> dict[str, object]:
    if not code:
        return {"metadata": {}, "status": "Success"}
    if code < 0:  # the runtime did not start it
        message = "error executing command in container: failed to exec"
        return {"metadata": {}, "status": "Failure", "message": message, "reason": "InternalError"}
    message = f"command terminated with exit code {code}"
    details = {"causes": [{"reason": "ExitCode", "message": str(code)}]}
    return {
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": "NonZeroExitCode",
        "details": details,
    }


def _frame(data: bytes) -> bytes:
    size = len(data)
    if size < 126:
        head = bytes([_BINARY, size])
    elif size < 65536:
        head = bytes([_BINARY, 126]) + size.to_bytes(2, "big")
    else:
        head = bytes([_BINARY, 127]) + size.to_bytes(8, "big")
    return head + data
