"""The supervisor's connection to the agent's direct.sock, and the generation of what was decided.

`stale()` is the safety property: it returns only when the kernel surely uses nothing any more that
was decided before it was called: the agent has said so, or its lease has run out. One JSON object
a line; kinds that we do not know are passed over.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control.kit.backoff import Backoff
from control.kit.clock import Clock
from control.kit.errors import ControlError, WireError
from control.kit.log import event

log = logging.getLogger("direct")

VERSION: Final = 1
LINE_BYTES_MAX: Final = 64 * 1024
# What may wait for an agent that does not read: the verdicts and shares of a busy node, told anew.
OUTGOING_BYTES_MAX: Final = 4 * 1024 * 1024
BACKOFF_INITIAL_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
LEASE_S_MAX: Final = 30.0  # of an agent that asks for more we want nothing

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
Line = dict[str, Any]


class AgentLeft(ControlError):
    reason = "agent_left"


class AgentSilent(ControlError):
    reason = "agent_silent"


@dataclass(frozen=True, slots=True)
class Timing:
    """How long anything may take before the connection is given up."""

    hello_s: float = 2.0
    ack_s: float = 1.0
    lease_margin_s: float = 0.5  # of the agent's clock and of our noticing
    # Agents that come, and never acknowledge, must not keep policy from the workers for ever.
    stale_s_max: float = 60.0


@dataclass(slots=True)
class LinkStatus:
    connected: bool = False
    acknowledged: int = 0
    error: str = ""
    unknown_kinds: int = 0


class DirectLink:
    """`heard` gets every line that is not about the generation, the agent's hello first: the
    generation is another one then."""

    def __init__(
        self,
        path: Path,
        clock: Clock,
        heard: Callable[[Line], None],
        *,
        timing: Timing | None = None,
        connect: Callable[[], Awaitable[Streams]] | None = None,
    ) -> None:
        self._path = path
        self._heard = heard
        self._timing = timing or Timing()
        self._connect = connect or self._dial
        # Higher than anything an earlier process of ours has signed with, small enough for JSON.
        self.generation = int(clock.now().timestamp() * 1_000_000)
        self.generations = 0  # how often it was raised
        self.status = LinkStatus()
        self._writer: asyncio.StreamWriter | None = None  # while the hellos are exchanged
        self._lease_s = 0.0
        self._lease_until_s = 0.0  # on the loop's clock; of a connection that was lost
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
        # A new one for each connection: nothing signed on an earlier one comes back to life when
        # the agent starts its lease anew.
        self._raise()
        try:
            _write(
                writer,
                {
                    "kind": "hello",
                    "version": VERSION,
                    "pid": os.getpid(),
                    "generation": self.generation,
                },
            )
            async with asyncio.timeout(self._timing.hello_s):
                hello = await _read(reader)
            self._greeted(hello, writer)
            backoff.reset()
            while True:
                self._take(await _read(reader))
        finally:
            self._left(writer)
            writer.transport.abort()

    def _greeted(self, hello: Line, writer: asyncio.StreamWriter) -> None:
        lease_s = hello.get("lease_s")
        if hello.get("kind") != "hello" or hello.get("version") != VERSION:
            raise WireError("the agent speaks another language")
        if not isinstance(lease_s, int | float) or not 0 < lease_s <= LEASE_S_MAX:
            raise WireError(f"a lease of {lease_s!r} seconds")
        self._lease_s = float(lease_s)
        self._writer = writer
        self.status.connected, self.status.error = True, ""
        event(log, logging.INFO, "direct.connected", path=self._path, lease_s=lease_s)
        self._changed.set()
        # Once more, for the answer: a `stale()` that waits may have waited for this agent.
        self.send({"kind": "generation", "generation": self.generation})
        self._heard(hello)

    def _left(self, writer: asyncio.StreamWriter) -> None:
        if self._writer is writer:
            self._writer = None
            margin_s = self._timing.lease_margin_s
            now_s = asyncio.get_running_loop().time()
            self._lease_until_s = now_s + self._lease_s + margin_s
            self.status.connected = False
            self._changed.set()

    def _take(self, line: Line) -> None:
        match line.get("kind"):
            case "generation":
                said = line.get("generation")
                if not isinstance(said, int) or said > self.generation:
                    raise WireError(f"a generation that was never said: {said!r}")
                self.status.acknowledged = max(self.status.acknowledged, said)
                self._changed.set()
            case "opened" | "moved" | "closed":
                self._heard(line)
            case _:
                self.status.unknown_kinds += 1

    def send(self, line: Line) -> bool:
        """False: nobody is there to be told, or it did not read for too long and was left."""
        writer = self._writer
        if writer is None:
            return False
        if writer.transport.get_write_buffer_size() > OUTGOING_BYTES_MAX:
            self._give_up("the agent does not read")
            return False
        _write(writer, line)
        return True

    def _give_up(self, why: str) -> None:
        writer = self._writer
        if writer is not None:
            event(log, logging.WARNING, "direct.given_up", reason=why)
            self._left(writer)
            writer.transport.abort()  # the reading task sees the end

    # -- the generation --------------------------------------------------------------------------

    async def stale(self) -> None:
        """Nothing decided so far counts any more; returns when the kernel surely goes by that."""
        self._raise()
        wanted = self.generation
        self.send({"kind": "generation", "generation": wanted})
        try:
            async with asyncio.timeout(self._timing.stale_s_max):
                await self._settled(wanted)
        except TimeoutError:
            event(log, logging.ERROR, "direct.never_acknowledged", generation=wanted)
            self._give_up("it never acknowledges")
            # What it was lent last may still run; whoever comes back meanwhile voids it at once.
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


def _write(writer: asyncio.StreamWriter, line: Line) -> None:
    data = json.dumps(line, separators=(",", ":")).encode() + b"\n"
    if len(data) > LINE_BYTES_MAX:
        raise WireError(f"a line of {len(data)} bytes")
    writer.write(data)


async def _read(reader: asyncio.StreamReader) -> Line:
    """WireError: not a line of ours; AgentLeft: there is none any more."""
    try:
        data = await reader.readuntil(b"\n")
    except asyncio.IncompleteReadError as exc:
        raise AgentLeft("the agent has gone") from exc
    except asyncio.LimitOverrunError as exc:
        raise WireError("a line longer than agreed") from exc
    try:
        line = json.loads(data)
    except ValueError as exc:
        raise WireError("a line that is not JSON") from exc
    if not isinstance(line, dict):
        raise WireError("a line that is not an object")
    return line
