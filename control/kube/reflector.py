"""Follows all objects of one kind: asks as `reflection` decides, and hands over what comes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from contextlib import suppress
from typing import Protocol

import msgspec

from control.kit.clock import Clock
from control.kit.errors import MeshError
from control.kit.log import event
from control.kube.client import KubeClient
from control.kube.errors import ApiError, Unreachable, UnreadableAnswer, error_of_event
from control.kube.lines import Lines
from control.kube.nesting import decoded
from control.kube.reflection import (
    END_MARK,
    Definition,
    KubeRequest,
    Name,
    Phase,
    Reflection,
)

log = logging.getLogger("kube")

SLICE = 50  # objects, some 5 ms: then others have the loop
TROUBLE_LINE_S = 60.0  # a failure that goes on is logged this often


class ObjectSink(Protocol):
    """Store of objects. Nothing in it may raise for an object that it cannot read."""

    def put(self, item: bytes) -> Name | None:
        """A new or changed object, as JSON; its name. None: it has none."""

    def gone(self, item: bytes) -> None:
        """An object that was deleted, as it was last."""

    def keep(self, names: AbstractSet[Name]) -> int:
        """All that there are: every other one is gone. The number of those that went."""


class _ListMeta(msgspec.Struct):
    version: str = msgspec.field(default="", name="resourceVersion")
    token: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    items: list[msgspec.Raw] | None = None
    metadata: _ListMeta = msgspec.field(default_factory=_ListMeta)


class _Line(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _ItemMeta(msgspec.Struct):
    version: str = msgspec.field(default="", name="resourceVersion")
    annotations: dict[str, str] | None = None


class _Object(msgspec.Struct):
    metadata: _ItemMeta = msgspec.field(default_factory=_ItemMeta)


_LINE = msgspec.json.Decoder(_Line)
_OBJECT = msgspec.json.Decoder(_Object)


class Reflector:
    """`definition` is the path of the CRD of a kind that may be absent. `changed` is called
    whenever something may be different: objects, or how it goes; `recovered` when the server can be
    reached again after it could not."""

    def __init__(
        self,
        client: KubeClient,
        paths: Sequence[str],
        sink: ObjectSink,
        clock: Clock,
        *,
        reflection: Reflection | None = None,
        definition: str = "",
        changed: Callable[[], None] = lambda: None,
        recovered: Callable[[], None] = lambda: None,
    ) -> None:
        self.state = reflection or Reflection(len(paths))
        self._client = client
        self._paths = paths
        self._definition = definition
        self._sink = sink
        self._clock = clock
        self._changed = changed
        self._recovered = recovered
        self._hurry = asyncio.Event()
        self._told: tuple[str, float] = ("", 0.0)

    async def run(self) -> None:
        """Follow until cancelled."""
        while True:
            pause_s = await self.step()
            if pause_s > 0:
                self._hurry.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause_s):
                        await self._hurry.wait()

    def hurry(self) -> None:
        """End a pause that was made because nobody answered: somebody has been answered."""
        if isinstance(self.state.trouble, Unreachable):
            self._hurry.set()

    async def step(self) -> float:
        """One request and its whole answer; the pause to make after it."""
        request = self.state.next(self._clock.monotonic_s())
        try:
            if request.is_watch:
                await self._watch(request)
            else:
                await self._page(request)
            return self.state.ended(self._clock.monotonic_s())
        except MeshError as exc:
            pause_s = self.state.failed(exc, self._clock.monotonic_s())
            if self.state.is_in_doubt:
                pause_s = await self._ask_definition(pause_s)
            self._tell(request, self.state.trouble or exc)
            self._changed()
            return pause_s

    async def _ask_definition(self, pause_s: float) -> float:
        """The pause after an answer that the kind is not served."""
        name = self._definition.rpartition("/")[2]
        try:
            await self._client.get(self._definition, _Object)
            found = Definition.THERE
        except ApiError as exc:
            if exc.code == 403:
                found = Definition.HIDDEN
            elif exc.code == 404 and name in exc.message:
                found = Definition.NONE
            else:
                return pause_s  # from something that knows of no kind at all
        except MeshError:
            return pause_s
        pause_s = self.state.defined(found, name)
        if self.state.is_absent and (gone := self._sink.keep(frozenset())):
            event(log, logging.WARNING, "kube.kind_gone", definition=name, objects=gone)
        return pause_s

    async def _page(self, request: KubeRequest) -> None:
        page = await self._client.get(self._paths[request.path], _Page, request.parameters)
        self._reached()
        for at, item in enumerate(page.items or ()):
            self._put(item)
            if at % SLICE == SLICE - 1:
                await asyncio.sleep(0)
        meta = page.metadata
        if self.state.page(meta.version, meta.token, self._clock.monotonic_s()):
            self._complete(request)

    async def _watch(self, request: KubeRequest) -> None:
        path, lines, state = self._paths[request.path], Lines(), self.state
        heard = 0
        async with self._client.watch(path, request.parameters, lambda: state.silence_s) as chunks:
            self._reached()
            async for chunk in chunks:
                for line in lines.feed(chunk):
                    self._line(request, line)
                    heard += 1
                    if heard % SLICE == 0:
                        await asyncio.sleep(0)

    def _reached(self) -> None:
        trouble = self.state.trouble
        if trouble is None:
            return
        self.state.opened()
        self._changed()
        if isinstance(trouble, Unreachable):
            self._recovered()

    def _line(self, request: KubeRequest, line: bytes) -> None:
        path = self._paths[request.path]
        try:
            found = decoded(_LINE.decode, line)
            if found.type == "ERROR":
                raise error_of_event(bytes(found.object), f"watch {path}")
            meta = decoded(_OBJECT.decode, bytes(found.object)).metadata
        except (msgspec.DecodeError, UnicodeDecodeError) as exc:
            raise UnreadableAnswer(f"watch {path}: {exc}") from exc
        if found.type in ("ADDED", "MODIFIED"):
            self._put(found.object)
        elif found.type == "DELETED":
            self._sink.gone(bytes(found.object))
            self._changed()
        is_end = found.type == "BOOKMARK" and (meta.annotations or {}).get(END_MARK) == "true"
        if self.state.line(meta.version, is_end, self._clock.monotonic_s()):
            self._complete(request)

    def _put(self, item: msgspec.Raw) -> None:
        name = self._sink.put(bytes(item))
        if name is not None and self.state.phase is not Phase.FOLLOW:
            self.state.seen.add(name)
        if self.state.is_synced:
            self._changed()

    def _complete(self, request: KubeRequest) -> None:
        count = len(self.state.seen)
        gone = self._sink.keep(self.state.seen)
        self.state.seen = set()
        path = self._paths[request.path]
        level = logging.INFO if self.state.passes == 1 else logging.DEBUG
        event(log, level, "kube.listed", path=path, objects=count, gone=gone)
        self._changed()

    def _tell(self, request: KubeRequest, exc: MeshError) -> None:
        """Each new trouble at once, one that goes on now and then."""
        if self.state.trouble is None:
            return
        now_s = self._clock.monotonic_s()
        words, told_s = self._told
        if exc.reason == words and now_s - told_s < TROUBLE_LINE_S:
            return
        self._told = (exc.reason, now_s)
        # A connection may break, and a version expire, at any time; a refusal has to be looked at.
        is_expired = isinstance(exc, ApiError) and exc.is_expired
        is_usual = self.state.failures == 1 and (is_expired or isinstance(exc, Unreachable))
        level = logging.INFO if is_usual else logging.WARNING
        event(
            log, level, "kube.trouble", path=self._paths[request.path], reason=exc.reason, error=exc
        )
