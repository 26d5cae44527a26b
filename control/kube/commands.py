"""A command in a pod's container, as `kubectl exec` runs it: its output, its errors, its exit code.

Over a websocket, as the API server has it since 1.29 at the latest; no terminal and no input.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from control.kit.lazy import lazy
from control.kube.client import BODY_BYTES_MAX, KubeClient
from control.kube.errors import TooLargeAnswer, Unreachable, UnreadableAnswer
from control.kube.resources import PODS

if TYPE_CHECKING:
    import aiohttp
else:
    aiohttp = lazy("aiohttp")

PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io")
STDERR_BYTES_MAX = 64 * 1024
_STDOUT, _STDERR, _END = 1, 2, 3  # first byte of a frame


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ran to its end."""

    code: int
    output: bytes
    errors: str


class _ExitCause(msgspec.Struct):
    reason: str = ""
    message: str = ""


class _ExitDetails(msgspec.Struct):
    causes: list[_ExitCause] = []


class _ExitStatus(msgspec.Struct):
    status: str = ""
    message: str = ""
    details: _ExitDetails | None = None


async def run_in_pod(
    client: KubeClient,
    namespace: str,
    pod: str,
    container: str,
    command: Sequence[str],
    timeout_s: float,
    output_bytes_max: int = BODY_BYTES_MAX,
) -> Ended:
    """Raises ApiError, Unreachable (also when the time is up), TooLargeAnswer."""
    path = PODS.path(namespace, pod, "exec")
    parameters = [
        ("container", container),
        ("stdout", "true"),
        ("stderr", "true"),
        *(("command", word) for word in command),
    ]
    try:
        async with (
            asyncio.timeout(timeout_s),
            client.websocket(path, parameters, PROTOCOLS) as socket,
        ):
            return await _heard(socket, path, output_bytes_max)
    except TimeoutError as exc:
        raise Unreachable(f"{path}: no end within {timeout_s:g} s") from exc


async def _heard(
    socket: aiohttp.ClientWebSocketResponse, path: str, output_bytes_max: int
) -> Ended:
    output, errors, end = bytearray(), bytearray(), b""
    async for frame in socket:
        data = frame.data if frame.type is aiohttp.WSMsgType.BINARY else b""
        if not data:
            continue
        channel, rest = data[0], data[1:]
        if channel == _STDOUT:
            output += rest
        elif channel == _STDERR:
            errors += rest[: STDERR_BYTES_MAX - len(errors)]
        elif channel == _END:
            end += rest
        if len(output) > output_bytes_max:
            raise TooLargeAnswer(f"{path}: over {output_bytes_max} bytes of output")
    said = errors.decode(errors="replace").strip()
    if not end:
        raise Unreachable(f"{path}: the connection ended before the command{_beside(said)}")
    return Ended(_code(end, path, said), bytes(output), said)


def _code(end: bytes, path: str, said: str) -> int:
    """The exit code in the last Status; UnreadableAnswer if the command did not start."""
    try:
        status = msgspec.json.decode(end, type=_ExitStatus)
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise UnreadableAnswer(f"{path}: {exc}") from exc
    if status.status == "Success":
        return 0
    causes: list[Any] = status.details.causes if status.details else []
    codes = [each.message for each in causes if each.reason == "ExitCode"]
    if codes and codes[0].isdecimal():
        return int(codes[0])
    raise UnreadableAnswer(f"{path}: {status.message or 'the command failed'}{_beside(said)}")


def _beside(said: str) -> str:
    return f" ({said.splitlines()[-1]})" if said else ""
