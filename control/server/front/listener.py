"""Accepts connections for gRPC: sockets, descriptors, and the turns of those without a token."""

from __future__ import annotations

import asyncio
import logging
import os
import resource
import socket
import ssl
from collections.abc import Callable, Iterable

from control.kit.clock import Clock
from control.kit.errors import ConfigError
from control.kit.listen import listen_address
from control.kit.log import event
from control.kit.socket_folder import private_folder
from control.server.callers.arrivals import Arrivals
from control.server.callers.budget import Rounds
from control.server.callers.door import peer_name
from control.server.callers.refusals import CallRefusal
from control.server.front.answers import Answers
from control.server.front.relay import ANSWER_BYTES, LARGE_READ_BYTES, Relay, Shared

log = logging.getLogger("server")

BACKLOG = 1024
FINISH_S = 1.0  # for clients that take their last bytes; others are cut
ACCEPTED_AT_ONCE = 32  # a millisecond
# One to the client, two between us and gRPC.
DESCRIPTORS_EACH = 3
# For files, logs, admin pages and gRPC's own needs.
DESCRIPTORS_RESERVED = 256
# Connections without a token have half of the time at most, in slices that hold nobody up. A round
# of the loop that was shorter than this had nothing else to do.
SLICE_S, IDLE_S = 0.004, 0.0002
# gRPC's row of connections that it has not accepted may be full for a moment.
CONNECT_TRIES, CONNECT_PAUSE_S = 50, 0.02


def capacity() -> int:
    """Raise this process's limit of descriptors as far as allowed; connections that fit into it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return max(8, (hard - DESCRIPTORS_RESERVED) // DESCRIPTORS_EACH)


class GrpcSocket:
    """The unix socket between us and gRPC, in a folder that only we can enter.

    The folder is locked while we live; what a killed process left is removed by the next one.
    """

    def __init__(self) -> None:
        self._folder, self._descriptor = private_folder()
        # By descriptor: a socket's path has 107 letters at most, a temporary folder's more.
        self.path = f"/proc/self/fd/{self._descriptor}/grpc"

    def close(self) -> None:
        self._folder.cleanup()
        os.close(self._descriptor)


class TlsFront:
    """The listening sockets. `context()` is asked for each connection."""

    def __init__(
        self,
        arrivals: Arrivals,
        clock: Clock,
        context: Callable[[], ssl.SSLContext],
        grpc_path: str,
        tasks: asyncio.TaskGroup,
    ) -> None:
        self._clock = clock
        self._grpc_path = grpc_path
        self._tasks = tasks
        self._rounds: Rounds[Relay] = Rounds()
        self._servers: list[asyncio.Server] = []
        self._shared = Shared(
            arrivals,
            clock,
            context,
            self._connect,
            self._queue,
            bytearray(LARGE_READ_BYTES),
            bytearray(ANSWER_BYTES),
        )

    async def start(self, sockets: Iterable[socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        for each in sockets:
            server = await loop.create_server(
                lambda: Relay(self._shared), sock=each, backlog=ACCEPTED_AT_ONCE
            )
            each.listen(BACKLOG)  # asyncio has one number for both
            self._servers.append(server)

    def close(self) -> None:
        for each in self._servers:
            each.close()

    async def finish(self) -> None:
        """Wait until clients have the last bytes of what gRPC has ended: else a stop in order looks
        like a crash to them."""
        try:
            async with asyncio.timeout(FINISH_S):
                while self._shared.open:
                    await self._shared.idle.wait()
        except TimeoutError:
            event(log, logging.INFO, "server.cut", connections=len(self._shared.open))

    def _queue(self, relay: Relay) -> None:
        if not self._rounds:
            asyncio.get_running_loop().call_soon(self._serve_round)
        self._rounds.push(relay.arrival.tenant, relay)

    def _serve_round(self) -> None:
        until_s = self._clock.monotonic_s() + SLICE_S
        while self._rounds and self._clock.monotonic_s() < until_s:
            self._rounds.pop().step()
        if self._rounds:
            self._let_others(self._clock.monotonic_s() + SLICE_S, None)

    def _let_others(self, until_s: float, since_s: float | None) -> None:
        """The next slice comes after as long a time for others, or when these have nothing to do:
        callbacks of two rounds of the loop have all of theirs in between."""
        now_s = self._clock.monotonic_s()
        if now_s >= until_s or (since_s is not None and now_s - since_s < IDLE_S):
            self._serve_round()
        else:
            asyncio.get_running_loop().call_soon(self._let_others, until_s, now_s)

    def _connect(self, relay: Relay) -> None:
        self._tasks.create_task(self._connect_to_grpc(relay), name="front.connect")

    async def _connect_to_grpc(self, relay: Relay) -> None:
        try:
            sock = await self._open(relay.arrival.number)
            loop = asyncio.get_running_loop()
            transport, _ = await loop.create_unix_connection(
                lambda: Answers(relay, self._shared.answer_buffer, sock), sock=sock
            )
        except OSError as exc:
            event(log, logging.ERROR, "server.grpc_unreachable", error=exc)
            relay.close(CallRefusal.GRPC_UNREACHABLE)
            return
        relay.connected(transport)

    async def _open(self, number: int) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        try:
            sock.setblocking(False)
            sock.bind(peer_name(os.getpid(), number))
            for _ in range(CONNECT_TRIES):
                try:
                    sock.connect(self._grpc_path)
                    return sock
                except BlockingIOError:
                    await asyncio.sleep(CONNECT_PAUSE_S)
            raise TimeoutError("gRPC takes no connection")
        except OSError:
            sock.close()
            raise


def bind(where: str) -> list[socket.socket]:
    """Listening sockets of ADDR:PORT. `[::]` is every address of both families. Raises
    ConfigError."""
    host, number = listen_address(where)
    if host == "::" and not socket.has_dualstack_ipv6():
        host = "0.0.0.0"
    found: list[socket.socket] = []
    try:
        for family, _, _, _, address in socket.getaddrinfo(
            host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        ):
            dual = family == socket.AF_INET6 and host == "::"
            sock = socket.create_server(
                (str(address[0]), number), family=family, dualstack_ipv6=dual, backlog=BACKLOG
            )
            found.append(sock)
            number = sock.getsockname()[1]  # port 0: the same one for every address of a name
    except (OSError, OverflowError) as exc:
        for sock in found:
            sock.close()
        raise ConfigError(f"cannot listen on {where}: {exc}") from exc
    return found
