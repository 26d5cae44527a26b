"""The supervisor's connection to the agent's direct.sock, and the generation of its decisions.

`stale()` is the safety property: it returns only when the kernel certainly no longer uses anything
that was decided before the call. Either the agent has said so, or its lease has run out. Lines of
unknown kinds are passed over.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, assert_never

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import ControlError, WireError
from control.kit.log import event
from control.wire.direct import (
    LINE_BYTES_MAX,
    VERSION,
    AgentHello,
    AgentLine,
    FlowLine,
    Generation,
    Unknown,
    ZtunnelHello,
    ZtunnelLine,
    encode_line,
    read_agent_line,
)

log = logging.getLogger("direct")

# Bytes that wait for an agent that does not read: the verdicts and shares of a busy node, again.
OUTGOING_BYTES_MAX: Final = 4 * 1024 * 1024
BACKOFF_INITIAL_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
LEASE_S_MAX: Final = 30.0  # an agent that asks for more is left

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class DirectEnded(ControlError):
    reason = "agent_left"


@dataclass(frozen=True, slots=True)
class Timing:
    """Waits, after which the connection is given up."""

    hello_s: float = 2.0
    ack_s: float = 1.0
    lease_margin_s: float = 0.5  # for the agent's clock, and until we notice
    # Agents that connect and never acknowledge must not keep policy from the workers for ever.
    stale_s_max: float = 60.0


@dataclass(slots=True)
class LinkStatus:
    connected: bool = False
    acknowledged: int = 0
    error: str = ""
    unknown_kinds: int = 0


class DirectLink:
    """One link at a time. `heard` gets every line but generations, the agent's hello first; the
    generation has been raised by then."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        heard: Callable[[AgentHello | FlowLine], None],
        *,
        timing: Timing | None = None,
        connect: Callable[[], Awaitable[Streams]] | None = None,
    ) -> None:
        self._path = path
        self._heard = heard
        self._timing = timing or Timing()
        self._connect = connect or self._dial
        # Higher than any number an earlier process has signed with, and small enough for JSON.
        self.generation = int(clock.now().timestamp() * 1_000_000)
        self.generations = 0  # how often it was raised
        self.status = LinkStatus()
        self._writer: asyncio.StreamWriter | None = None  # set once the hellos are exchanged
        self._lease_s = 0.0
        self._lease_until_s = 0.0  # on the loop's clock: the lease of a connection that was lost
        self._changed = asyncio.Event()

    async def run(self) -> None:
        """Until cancelled."""
        backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        while True:
            try:
                await self._session(backoff)
            except (OSError, ControlError, WireError, TimeoutError) as exc:
                text = str(exc) or type(exc).__name__
                if text != self.status.error:  # the same failure again is no news
                    event(log, logging.WARNING, "direct.disconnected", error=text)
                self.status.error = text
            await asyncio.sleep(backoff.next_s())

    async def _dial(self) -> Streams:
        return await asyncio.open_unix_connection(str(self._path), limit=LINE_BYTES_MAX)

    async def _session(self, backoff: Backoff) -> None:
        async with asyncio.timeout(self._timing.hello_s):
            reader, writer = await self._connect()
        # A new one for each connection: the agent starts a new lease, and nothing signed on an
        # earlier connection may come back to life with it.
        self._raise()
        try:
            writer.write(encode_line(ZtunnelHello(self.generation, os.getpid(), tells_pods=True)))
            async with asyncio.timeout(self._timing.hello_s):
                hello = await _read(reader)
            self._greeted(hello, writer)
            backoff.reset()
            while True:
                self._take(await _read(reader))
        finally:
            self._left(writer)
            writer.transport.abort()

    def _greeted(self, hello: AgentLine | Unknown, writer: asyncio.StreamWriter) -> None:
        if not isinstance(hello, AgentHello) or hello.version != VERSION:
            raise WireError("the agent speaks another language")
        lease_s = hello.lease_s
        if lease_s > LEASE_S_MAX:
            raise WireError(f"a lease of {lease_s!r} seconds")
        self._lease_s = lease_s
        self._writer = writer
        self.status.connected, self.status.error = True, ""
        event(log, logging.INFO, "direct.connected", path=self._path, lease_s=lease_s)
        self._changed.set()
        # Once more, for the answer: a `stale()` may have been waiting for this agent.
        self.send(Generation(self.generation))
        self._heard(hello)

    def _left(self, writer: asyncio.StreamWriter) -> None:
        if self._writer is writer:
            self._writer = None
            margin_s = self._timing.lease_margin_s
            now_s = asyncio.get_running_loop().time()
            self._lease_until_s = now_s + self._lease_s + margin_s
            self.status.connected = False
            self._changed.set()

    def _take(self, line: AgentLine | Unknown) -> None:
        match line:
            case Generation(generation):
                if generation > self.generation:
                    raise WireError(f"a generation that was never said: {generation}")
                self.status.acknowledged = max(self.status.acknowledged, generation)
                self._changed.set()
            case FlowLine():
                self._heard(line)
            case AgentHello() | Unknown():
                self.status.unknown_kinds += 1
            case _:
                assert_never(line)

    def send(self, line: ZtunnelLine) -> bool:
        """Send a line. False: no agent is there, or it has not read for too long and was left."""
        writer = self._writer
        if writer is None:
            return False
        if writer.transport.get_write_buffer_size() > OUTGOING_BYTES_MAX:
            self._give_up("the agent does not read")
            return False
        writer.write(encode_line(line))
        return True

    def _give_up(self, why: str) -> None:
        writer = self._writer
        if writer is not None:
            event(log, logging.WARNING, "direct.given_up", reason=why)
            self._left(writer)
            writer.transport.abort()  # the reading task sees the end

    # -- the generation --------------------------------------------------------------------------

    async def stale(self) -> None:
        """Void everything decided so far; return when the kernel certainly no longer uses it."""
        self._raise()
        wanted = self.generation
        self.send(Generation(wanted))
        try:
            async with asyncio.timeout(self._timing.stale_s_max):
                await self._settled(wanted)
        except TimeoutError:
            event(log, logging.ERROR, "direct.never_acknowledged", generation=wanted)
            self._give_up("it never acknowledges")
            # Its last lease may still run. An agent that comes back meanwhile voids it at once.
            await asyncio.sleep(self._lease_until_s - asyncio.get_running_loop().time())

    def _raise(self) -> None:
        self.generation += 1
        self.generations += 1

    async def _settled(self, wanted: int) -> None:
        loop = asyncio.get_running_loop()
        asked: asyncio.StreamWriter | None = None
        asked_until_s = 0.0
        while self.status.acknowledged < wanted:
            if self._writer is not asked:
                asked = self._writer
                asked_until_s = loop.time() + self._timing.ack_s
            until_s = self._lease_until_s if asked is None else asked_until_s
            if loop.time() >= until_s:
                if asked is None:
                    return  # no lease runs
                self._give_up("no answer in time")
                continue
            self._changed.clear()
            try:
                async with asyncio.timeout_at(until_s):
                    await self._changed.wait()
            except TimeoutError:
                pass


async def _read(reader: asyncio.StreamReader) -> AgentLine | Unknown:
    """Next line; WireError: it breaks the protocol; AgentLeft: the agent has closed."""
    try:
        return read_agent_line(await reader.readuntil(b"\n"))
    except asyncio.IncompleteReadError as exc:
        raise DirectEnded("the agent has gone") from exc
    except asyncio.LimitOverrunError as exc:
        raise WireError("a line longer than agreed") from exc
