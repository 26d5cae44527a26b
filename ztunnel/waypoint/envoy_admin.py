"""Asks Envoy's admin page, on its unix socket. Every answer has a bound in bytes and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import h11

from control.kit.errors import MeshError

WITHIN_S = 5.0
BODY_BYTES_MAX = 64 * 1024
PIECE_BYTES = 64 * 1024


class EnvoySilent(MeshError):
    """Envoy is not there, or its answer cannot be used."""

    reason = "envoy_silent"


@dataclass(frozen=True, slots=True)
class EnvoyAnswer:
    status: int
    body: bytes


class EnvoyAdmin:
    def __init__(self, path: Path) -> None:
        self._path = path

    async def get(self, target: str, *, body_bytes_max: int = BODY_BYTES_MAX) -> EnvoyAnswer:
        """EnvoySilent: no answer, or a longer one."""
        return await self._ask("GET", target, body_bytes_max)

    async def post(self, target: str) -> EnvoyAnswer:
        return await self._ask("POST", target, BODY_BYTES_MAX)

    async def pieces(self, target: str, take: Callable[[bytes], bool]) -> None:
        """Hand over the body as it comes, until `take` says False. EnvoySilent: there is none."""
        status = await self._talk("GET", target, take)
        if status != 200:
            raise EnvoySilent(f"{target}: status {status}")

    async def _ask(self, method: str, target: str, body_bytes_max: int) -> EnvoyAnswer:
        body = bytearray()

        def take(piece: bytes) -> bool:
            body.extend(piece)
            return len(body) <= body_bytes_max

        status = await self._talk(method, target, take)
        if len(body) > body_bytes_max:
            raise EnvoySilent(f"{target}: an answer of more than {body_bytes_max} bytes")
        return EnvoyAnswer(status, bytes(body))

    async def _talk(self, method: str, target: str, take: Callable[[bytes], bool]) -> int:
        writer: asyncio.StreamWriter | None = None
        try:
            async with asyncio.timeout(WITHIN_S):
                reader, writer = await asyncio.open_unix_connection(self._path)
                return await _exchange(method, target, reader, writer, take)
        except TimeoutError as exc:
            raise EnvoySilent(f"{target}: no answer in {WITHIN_S:.0f} s") from exc
        except (OSError, h11.ProtocolError) as exc:
            raise EnvoySilent(f"{target}: {exc}") from exc
        finally:
            if writer is not None:
                writer.close()


async def _exchange(
    method: str,
    target: str,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    take: Callable[[bytes], bool],
) -> int:
    """The status; the body goes to `take`."""
    connection = h11.Connection(h11.CLIENT)
    head = [("host", "envoy"), ("connection", "close"), ("content-length", "0")]
    request = h11.Request(method=method, target=target, headers=head)
    writer.write((connection.send(request) or b"") + (connection.send(h11.EndOfMessage()) or b""))
    await writer.drain()
    status = 0
    while True:
        item = connection.next_event()
        if item is h11.NEED_DATA:
            connection.receive_data(await reader.read(PIECE_BYTES))
        elif isinstance(item, h11.Response):
            status = item.status_code
        elif isinstance(item, h11.Data):
            if not take(bytes(item.data)):
                return status
        elif isinstance(item, h11.EndOfMessage):
            return status
        else:
            raise EnvoySilent(f"{target}: the answer was cut short")
