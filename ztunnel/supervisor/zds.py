"""The ztunnel's side of ZDS: the node agent says which pods to serve, and gets an answer to each
request.

SEQPACKET, one protobuf message a datagram, answers in the order of the requests. An agent of ours
does not wait for each: adds of several pods are under way at once. Pods that a reconnected agent no
longer names are dropped when its snapshot is complete. While the agent is away everything stays
served.
"""

from __future__ import annotations

import array
import asyncio
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from google.protobuf.message import DecodeError

from control.kit.backoff import Backoff
from control.kit.descriptors import close_all, receive_message
from control.kit.errors import ControlError, MeshError, WireError
from control.kit.log import event
from control.wire import zds_pb2 as pb
from ztunnel.supervisor.pods import Claim, Ready

log = logging.getLogger("zds")

MESSAGE_BYTES_MAX = 1024
DESCRIPTORS_MAX = 8  # one is expected; more are taken only to be closed
# An agent reads MESSAGE_BYTES_MAX; Istio's ends the connection if there is more.
ERROR_BYTES_MAX = 512
BACKOFF_INITIAL_S = 0.1
BACKOFF_MAX_S = 5.0
SEND_DEADLINE_S = 5.0
REQUESTS_MAX = 64  # without an answer; an agent that sends more waits
_HELLO = pb.ZdsHello(version=pb.V1, side_by_side=True).SerializeToString()
# After the hello it means that we are going to end (C3).
_LEAVING = pb.ZdsHello(version=pb.V1).SerializeToString()


class ZdsEnded(ControlError):
    reason = "agent_left"


class PodKeeper(Protocol):
    """The pods that the agent's requests change."""

    def __contains__(self, uid: object) -> bool: ...

    def add(self, claim: Claim, netns: int) -> Ready: ...

    def delete(self, uid: str) -> None: ...

    def keep_only(self, uids: set[str]) -> None: ...


@dataclass(slots=True)
class ZdsStatus:
    connected: bool = False
    snapshot: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    error: str = ""
    descriptors: tuple[int, ...] = ()

    def message(self) -> bytes:
        response = pb.WorkloadResponse()
        response.ack.SetInParent()
        if self.error:
            told = self.error.encode(errors="replace")[:ERROR_BYTES_MAX]
            response.ack.error = told.decode(errors="ignore")
        return response.SerializeToString()


Answer = Callable[[], Awaitable[Reply]]


def _answer(error: str = "") -> Answer:
    async def at_once() -> Reply:
        return Reply(error)

    return at_once


@dataclass(slots=True)
class ZdsSession:
    """Conversation on one connection: requests in, replies out. It holds no socket."""

    pods: PodKeeper
    status: ZdsStatus
    _named: set[str] = field(default_factory=set)
    _adding: set[str] = field(default_factory=set)  # added, and not answered yet
    _refused: dict[str, str] = field(default_factory=dict)  # uid → reason, as it was logged
    _snapshot: bool = False

    def takes_now(self, request: pb.WorkloadRequest) -> bool:
        """True for a request that need not wait for the answers to those before it: another pod's
        add. A pod that goes would take along the descriptors of its own answer."""
        return request.HasField("add") and request.add.uid not in self._adding

    def begin(self, request: pb.WorkloadRequest, received: Sequence[int]) -> Answer:
        """Act on a request; `received` are its descriptors, which are taken over.

        WireError: the agent breaks the protocol, hang up.
        """
        taken = False
        try:
            match request.WhichOneof("payload"):
                case "add":
                    if len(received) != 1:
                        return _answer(f"add needs one descriptor, {len(received)} came")
                    taken = True
                    return self._add(request.add, received[0])
                case "keep":
                    return self._keep(request.keep.uid)
                case "del":
                    uid = getattr(request, "del").uid
                    self._named.discard(uid)
                    self._refused.pop(uid, None)
                    self.pods.delete(uid)
                    return _answer()
                case "snapshot_sent":
                    return self._snapshot_sent()
                case _:
                    raise WireError("a request of unknown kind")
        finally:
            if not taken:
                close_all(received)

    def _add(self, request: pb.AddWorkload, netns: int) -> Answer:
        info = request.workload_info
        claim = Claim(request.uid, info.name, info.namespace, info.service_account or "default")
        if not (claim.uid and claim.name and claim.namespace):
            os.close(netns)
            return _answer("uid, name and namespace are needed")
        self._named.add(claim.uid)
        try:
            ready = self.pods.add(claim, netns)
        except MeshError as exc:
            return _answer(self._not_added(claim, exc))
        self._adding.add(claim.uid)
        return lambda: self._added(claim, ready)

    async def _added(self, claim: Claim, ready: Ready) -> Reply:
        try:
            descriptors = await ready()
        except MeshError as exc:
            return Reply(self._not_added(claim, exc))
        self._refused.pop(claim.uid, None)
        return Reply(descriptors=descriptors)

    def _not_added(self, claim: Claim, error: MeshError) -> str:
        """The error for the agent, which asks again every few seconds: it is logged once."""
        is_news = self._refused.get(claim.uid) != error.reason
        self._refused[claim.uid] = error.reason
        pod = f"{claim.namespace}/{claim.name}"
        what = {"uid": claim.uid, "pod": pod, "reason": error.reason, "error": error}
        event(log, logging.WARNING if is_news else logging.DEBUG, "pod.not_added", **what)
        return f"{error.reason}: {error}"

    def answered(self, uid: str) -> None:
        """The answer about a pod has been sent."""
        self._adding.discard(uid)

    def _keep(self, uid: str) -> Answer:
        self._named.add(uid)
        if uid not in self.pods:
            event(log, logging.WARNING, "pod.not_kept", uid=uid, reason="unknown")
        return _answer()

    def _snapshot_sent(self) -> Answer:
        if not self._snapshot:
            self._snapshot = True
            self.pods.keep_only(set(self._named))
            self.status.snapshot = True
            event(log, logging.INFO, "zds.snapshot", pods=len(self._named))
        return _answer()


class ZdsClient:
    def __init__(
        self, path: Path, pods: PodKeeper, may_connect: Callable[[], bool] = lambda: True
    ) -> None:
        self._path = path
        self._pods = pods
        self._may_connect = may_connect
        self.status = ZdsStatus()
        self._sock: socket.socket | None = None
        self._is_leaving = False

    def leave(self) -> None:
        """Tell the agent that we are going to end: whoever else is there goes before us."""
        self._is_leaving = True
        if self._sock is not None:
            try:
                self._sock.send(_LEAVING)
            except OSError as exc:  # it is about to be seen by whoever reads
                event(log, logging.WARNING, "zds.not_told", error=exc)

    async def run(self) -> None:
        """Connect, serve the agent, and start again when it has gone, until cancelled."""
        backoff = Backoff(BACKOFF_INITIAL_S, BACKOFF_MAX_S)
        while True:
            try:
                if self._may_connect():
                    await self._serve(backoff)
            except* (OSError, ControlError, WireError, TimeoutError) as group:
                exc = group.exceptions[0]
                if isinstance(exc, BaseExceptionGroup):  # the conversation's
                    exc = exc.exceptions[0]
                text = str(exc) or type(exc).__name__
                if text != self.status.error:  # the same failure again is no news
                    event(log, logging.WARNING, "zds.disconnected", path=self._path, error=text)
                self.status.connected = False
                self.status.error = text
            await asyncio.sleep(backoff.next_s())

    async def _serve(self, backoff: Backoff) -> None:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK
        with socket.socket(socket.AF_UNIX, kind) as sock:
            await loop.sock_connect(sock, str(self._path))
            await loop.sock_sendall(sock, _HELLO)
            if self._is_leaving:
                await loop.sock_sendall(sock, _LEAVING)
            self._sock = sock
            self.status.connected = True
            self.status.error = ""
            event(log, logging.INFO, "zds.connected", path=self._path)
            try:
                await self._converse(sock, backoff)
            finally:
                self._sock = None

    async def _converse(self, sock: socket.socket, backoff: Backoff) -> None:
        session = ZdsSession(self._pods, self.status)
        under_way: asyncio.Queue[Underway] = asyncio.Queue(REQUESTS_MAX)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(_reply(sock, session, under_way, backoff), name="zds.reply")
            while True:
                data, received = await _receive(sock)
                request = parsed(data, received)
                if not session.takes_now(request):
                    try:
                        await under_way.join()
                    except asyncio.CancelledError:
                        close_all(received)
                        raise
                answer = tasks.create_task(
                    _run(session.begin(request, received)), name="zds.answer"
                )
                await under_way.put((request.add.uid, answer))


Underway = tuple[str, asyncio.Task[Reply]]  # the uid of an add, else ""


async def _run(answer: Answer) -> Reply:
    return await answer()


async def _reply(
    sock: socket.socket, session: ZdsSession, under_way: asyncio.Queue[Underway], backoff: Backoff
) -> None:
    """Send the answers in the order of the requests."""
    while True:
        uid, answer = await under_way.get()
        reply = await answer
        async with asyncio.timeout(SEND_DEADLINE_S):
            await _send(sock, reply)
        session.answered(uid)
        under_way.task_done()
        backoff.reset()


def parsed(data: bytes, received: Sequence[int]) -> pb.WorkloadRequest:
    try:
        return pb.WorkloadRequest.FromString(data)
    except DecodeError as exc:
        close_all(received)
        raise WireError("not a workload request") from exc


async def _receive(sock: socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """Next request; WireError: it is larger than agreed; AgentLeft: the agent has closed."""
    await _until(sock, writing=False)
    data, received = receive_message(sock, MESSAGE_BYTES_MAX, DESCRIPTORS_MAX)
    if not data:
        close_all(received)
        raise ZdsEnded("the agent has gone")
    return data, received


async def _send(sock: socket.socket, reply: Reply) -> None:
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", reply.descriptors))]
    while True:
        try:
            sock.sendmsg([reply.message()], rights if reply.descriptors else [])
            return
        except BlockingIOError:
            await _until(sock, writing=True)


async def _until(sock: socket.socket, *, writing: bool) -> None:
    """Wait until the socket can be written to, or read from."""
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    add, remove = (
        (loop.add_writer, loop.remove_writer) if writing else (loop.add_reader, loop.remove_reader)
    )
    add(sock, ready.set)
    try:
        await ready.wait()
    finally:
        remove(sock)
