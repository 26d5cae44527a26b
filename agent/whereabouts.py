"""Finds the replicas of the control plane: by the name of their service, and by their own word.

The name alone is not enough: a cluster's DNS starts after its agents, and may be away. What a
replica says comes with its answer to a report, just when the others are to be told the same.
"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from control.kit.clock import Clock
from control.model.address import Address, host_text

REPLICAS_MAX = 16  # addresses, of both families
# A replica's word counts for so long. Any later answer replaces it.
SAID_S = 600.0


class Whereabouts:
    def __init__(self, name: str, clock: Clock, tell: Callable[[bool], None]) -> None:
        """`name` is HOST:PORT of the headless service; its port is that of each replica. `tell`
        hears whether all of them are known: not at first, and after each change of any kind."""
        self.name = name
        self._port = name.rpartition(":")[2]
        self._clock = clock
        self._tell = tell
        self._known: tuple[list[str], bool] = ([], False)
        self._named: list[str] = []
        self._is_named = False
        self._said: list[str] = []
        self._said_until_s = 0.0
        tell(False)

    def named(self, found: Sequence[str] | None) -> None:
        """Take what is behind the name now; None: it is not resolved, and what was known stays."""
        self._is_named = bool(found)
        if found:
            self._named = list(found)
        self.all()

    def said(self, found: Sequence[Address]) -> None:
        """A replica has named all of them. None at all: it is older, or cannot know."""
        if found:
            self._said = [f"{host_text(each)}:{self._port}" for each in found]
            self._said_until_s = self._clock.monotonic_s() + SAID_S
            self.all()

    def all(self) -> list[str]:
        """ADDRESS:PORT of each, REPLICAS_MAX at most."""
        is_said = self._clock.monotonic_s() < self._said_until_s
        said = self._said if is_said else []
        named = self._named if self._is_named or not is_said else []
        found = list(dict.fromkeys([*said, *named]))
        are_known = (is_said or self._is_named) and len(found) <= REPLICAS_MAX
        known = found[:REPLICAS_MAX], are_known
        if known != self._known:
            self._known = known
            self._tell(are_known)
        return known[0]


async def resolve(name: str) -> list[str]:
    """Addresses behind HOST:PORT, in a stable order. Raises OSError; may take half a minute."""
    host, _, port = name.rpartition(":")
    hosts = sorted({str(each[4][0]) for each in await _look_up(host.strip("[]"), int(port))})
    return [f"[{each}]:{port}" if ":" in each else f"{each}:{port}" for each in hosts]


async def _look_up(host: str, port: int) -> list[Any]:
    """In a thread that nobody waits for: where the resolver is away, it outlasts the process."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[list[Any]] = loop.create_future()

    def settle(found: list[Any], error: OSError | None) -> None:
        if answer.done():
            return  # cancelled
        if error is None:
            answer.set_result(found)
        else:
            answer.set_exception(error)

    def look() -> None:
        found, error = [], None
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as exc:
            error = exc
        except UnicodeError as exc:  # no name that could ever be resolved
            error = OSError(str(exc))
        with suppress(RuntimeError):  # the loop has ended meanwhile
            loop.call_soon_threadsafe(settle, found, error)

    threading.Thread(target=look, name="resolve", daemon=True).start()
    return await answer
