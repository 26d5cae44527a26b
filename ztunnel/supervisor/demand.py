"""Addresses on demand: the workers' questions go to the control plane, and its answers to them.

The name book decides; this asks, gives back, and keeps the order that matters: a name is unknown
to the workers before the control plane is told that nobody needs it, because it then removes what
the name led to, and a known name that leads nowhere is outside the mesh.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator
from typing import Final

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.workload import Service
from control.wire import workload_pb2
from control.wire.convert import resource_from_wire
from control.wire.delta import DeltaClient, Update
from control.wire.types import ADDRESS_TYPE
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.known import address_name
from ztunnel.mesh.state import State
from ztunnel.refusals import Reason
from ztunnel.supervisor.name_book import NameBook

# A control plane that restarts is back before; from then on nobody waits in vain.
AWAY_S: Final = 2.0
QUEUE_S: Final = 0.02  # between looks at names that wait for their turn

PassOn = Callable[[list[Entry]], Awaitable[object]]
Refuse = Callable[[str, list[str], Reason], None]  # pod, names


class Demand:
    """`pass_on` gives entries to the state and the workers; `refuse` tells the workers that names
    of a pod will have no answer."""

    def __init__(self, delta: DeltaClient, state: State, pass_on: PassOn, refuse: Refuse) -> None:
        self.active = False  # all addresses come unasked
        self.book = NameBook()
        self._delta = delta
        self._state = state
        self._pass_on = pass_on
        self._refuse = refuse
        self._away_since_s: float | None = None  # None: the stream is there
        self._requests: deque[bytes] = deque()
        self._to_send = asyncio.Event()
        self._leaving: deque[list[str]] = deque()
        self._work = asyncio.Event()

    def begin(self) -> None:
        """Addresses come on demand from now on: nothing was asked for yet."""
        self.active = True
        self.book = NameBook()

    def end(self) -> None:
        """All of them come unasked from now on."""
        self.active = False
        self.book = NameBook()
        self._requests.clear()
        self._leaving.clear()

    # The stream

    def opened(self) -> None:
        """A stream begins: its opening has every name that is asked for now."""
        self._requests.clear()
        self._away_since_s = None

    def lost(self) -> None:
        if self._away_since_s is None:
            self._away_since_s = _now_s()

    async def send(self, send: Callable[[bytes], Awaitable[None]]) -> None:
        """Send requests on the stream, as they come."""
        while True:
            await self._to_send.wait()
            self._to_send.clear()
            while self._requests:
                await send(self._requests.popleft())

    def entries_of(self, update: Update, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The entries of an update without what removes nothing: answered names are among the
        removed ones. Services that nobody could have met so far are marked as new."""
        for entry in entries:
            if not self.active:
                yield entry
            elif entry.op is Op.ADDRESS and self._is_new(entry):
                yield Entry(Op.NEW_SERVICE, entry.name, entry.body)
            elif entry.op is not Op.REMOVE_ADDRESS or self._state.has(entry.name):
                yield entry

    def _is_new(self, entry: Entry) -> bool:
        """True for a service under no name that was answered so far: no verdict of the kernel's
        and no share rests on it."""
        if self._state.has(entry.name) or entry.name in self._state.known:
            return False
        try:
            value = resource_from_wire(workload_pb2.Address.FromString(entry.body))
        except (DecodeError, WireError):
            return False
        if not isinstance(value, Service) or any(e.length is not None for e in value.addresses):
            return False
        names = [address_name(each.network, each.address) for each in value.addresses]
        names += [address_name(each.network, each.address) for each in value.outer_addresses]
        return all(name not in self._state.known for name in names)

    async def answered(self, update: Update) -> None:
        """An update has been passed on: so are the answers in it."""
        if not self.active:
            return
        somewhere = set(update.versions)
        for each in update.each():
            somewhere.update(each.aliases)
        names = (*update.versions, *update.malformed, *update.removed)
        heard = self.book.told(names, somewhere, _now_s())
        if heard:
            await self._pass_on([Entry(Op.KNOWN, name) for name in heard])

    # The workers

    def want(self, pod: str, names: list[str], *, spare: bool) -> None:
        if not self.active:
            return  # the workers will hear that they need not ask
        now_s = _now_s()
        away_s = 0.0 if self._away_since_s is None else now_s - self._away_since_s
        if away_s >= AWAY_S:
            if not spare:
                self._refuse(pod, names, Reason.ADDRESS_UNASKED)
            return
        found = self.book.want(pod, names, now_s, spare=spare)
        if found.refused:
            self._refuse(pod, found.refused, Reason.ADDRESSES_MAX)
        self._ask(found.ask)
        if found.give_back:
            self._leaving.append(found.give_back)
        if found.give_back or self.book.has_queued:
            self._work.set()

    def _ask(self, names: list[str]) -> None:
        request = self._delta.subscribe(ADDRESS_TYPE, names) if names else None
        if request is not None:
            self._queue(request.SerializeToString(deterministic=True))

    def _queue(self, request: bytes) -> None:
        if self._away_since_s is None:
            self._requests.append(request)
            self._to_send.set()

    def look(self, pods: Collection[str], used: Iterable[str]) -> None:
        """Take in which names are in use, and have those go that are not."""
        self.book.keep(pods)
        self.book.used(used, _now_s())
        idle = self.book.idle(_now_s())
        if idle:
            self._leaving.append(idle)
            self._work.set()

    async def run(self) -> None:
        """Ask for names whose turn has come, and give back others, until cancelled."""
        while True:
            try:
                async with asyncio.timeout(QUEUE_S if self.book.has_queued else None):
                    await self._work.wait()
            except TimeoutError:
                pass
            self._work.clear()
            self._ask(self.book.due(_now_s()))
            while self._leaving:
                await self._give_back(self._leaving.popleft())

    async def _give_back(self, names: list[str]) -> None:
        await self._pass_on([Entry(Op.UNKNOWN, name) for name in names])
        if not self.active:
            return
        request = self._delta.unsubscribe(ADDRESS_TYPE, names)
        if request is not None:
            self._queue(request.SerializeToString(deterministic=True))
        for pod, name in list(self.book.gone(names)):
            self.want(pod, [name], spare=False)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
