"""ZDS, Istio's protocol between agent and ztunnels: one datagram, one answer, and descriptors.

The server listens on a SEQPACKET socket; every connected ztunnel is a `Ztunnel`. The server decides
nothing: it calls `serve_ztunnel` (the enroller) once for each ztunnel, after its hello, and that
runs for as long as the ztunnel is connected.

Our own ztunnel answers `add` with its listeners (control/wire/CONTRACT.md, C3), others answer with
a bare acknowledgement.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import struct
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from google.protobuf.message import DecodeError

from bpf import layout
from control.kit.clock import Clock
from control.kit.descriptors import close_all, receive_message
from control.kit.errors import MeshError, PeerError, WireError
from control.kit.log import event
from control.wire import zds_pb2 as pb

log = logging.getLogger("zds")

DATAGRAM_BYTES_MAX = 1024  # as much as a ztunnel reads; answers (an error text) may be longer
ANSWER_BYTES_MAX = 4096
# Three for each worker; the kernel cuts off what is beyond, and we refuse it.
DESCRIPTORS_MAX = layout.LISTENERS_MAX
DEADLINE_S = 5.0  # for the hello, and for each answer
# Our ztunnel's word that it is going to end: a hello again, which no answer looks like.
LEAVING = pb.ZdsHello(version=pb.V1).SerializeToString()
ACCEPTS_PER_S = 5  # a ztunnel that crashes at once must not keep us busy
ZTUNNELS_MAX = 8  # an upgrade needs two


class ZtunnelLeft(PeerError):
    reason: ClassVar[str] = "ztunnel_left"


class ZtunnelRefused(PeerError):
    """An error for an answer, or a process that may not be a ztunnel."""

    reason: ClassVar[str] = "ztunnel_refused"


class NodeFull(ZtunnelRefused):
    reason: ClassVar[str] = "too_many_pods"


class WorkersAway(ZtunnelRefused):
    reason: ClassVar[str] = "workers_not_ready"


class NetworkUnusable(ZtunnelRefused):
    reason: ClassVar[str] = "netns_unusable"


_REFUSALS = {each.reason: each for each in (NodeFull, WorkersAway, NetworkUnusable)}


def refused(error: str) -> ZtunnelRefused:
    """The refusal for a ztunnel's error; one of ours begins with its reason."""
    return _REFUSALS.get(error.partition(":")[0], ZtunnelRefused)(error)


class ZtunnelSlow(PeerError):
    reason: ClassVar[str] = "ztunnel_timeout"


class Descriptors:
    """Received descriptors; their owner closes them."""

    def __init__(self, numbers: list[int]) -> None:
        self._numbers = numbers

    def __len__(self) -> int:
        return len(self._numbers)

    @property
    def numbers(self) -> tuple[int, ...]:
        return tuple(self._numbers)

    def close(self) -> None:
        close_all(self._numbers)
        self._numbers.clear()


@dataclass(frozen=True, slots=True)
class PodInfo:
    uid: str
    name: str
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that was sent; its answer is still to come."""

    _waiting: asyncio.Future[tuple[bytes, Descriptors]]
    _deadline_s: float

    async def answer(self) -> Descriptors:
        """The descriptors that came with the acknowledgement. PeerError: it is none."""
        try:
            data, descriptors = await within(self._deadline_s, self._waiting)
        except asyncio.CancelledError:
            if self._waiting.done() and not self._waiting.cancelled():
                self._waiting.result()[1].close()
            raise
        try:
            response = pb.WorkloadResponse.FromString(data)
            if response.WhichOneof("payload") != "ack":
                raise WireError("an answer that is no acknowledgement")
            if response.ack.error:
                raise refused(response.ack.error)
        except DecodeError as exc:
            descriptors.close()
            raise WireError("an answer that is no WorkloadResponse") from exc
        except PeerError:
            descriptors.close()
            raise
        return descriptors


async def within(
    deadline_s: float, answer: asyncio.Future[tuple[bytes, Descriptors]]
) -> tuple[bytes, Descriptors]:
    try:
        async with asyncio.timeout(deadline_s):
            return await answer
    except TimeoutError as exc:
        raise ZtunnelSlow(f"no answer within {deadline_s:g} s") from exc


class Ztunnel:
    """One connected ztunnel. It answers requests in their order; Istio's expects one at a time."""

    def __init__(
        self,
        number: int,
        sock: socket.socket,
        connected_at: datetime,
        deadline_s: float = DEADLINE_S,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._hello = asyncio.get_running_loop().create_future()
        self._answers: deque[asyncio.Future[tuple[bytes, Descriptors]]] = deque()  # still to come
        self._deadline_s = deadline_s
        self.number = number
        self.connected_at = connected_at
        self.pid, self.user, _ = struct.unpack(
            "=iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        )
        self.is_ours = False  # it has once answered `add` with its listeners
        self.is_side_by_side = False  # it need not be asked for one pod at a time
        self.is_leaving = False  # it has said hello twice: whoever else is there goes before it
        self.on_leaving: Callable[[], None] = lambda: None

    async def greeted(self) -> None:
        """Wait for its hello; PeerError when it is late or wrong."""
        data = await within(self._deadline_s, self._hello)
        try:
            hello = pb.ZdsHello.FromString(data[0])
        except DecodeError as exc:
            raise WireError("the first datagram is not a ZdsHello") from exc
        finally:
            data[1].close()
        if hello.version != pb.V1:
            raise ZtunnelRefused(f"ZDS version {hello.version}, we speak 1")
        self.is_side_by_side = hello.side_by_side

    def add(self, pod: PodInfo, netns_fd: int) -> Asked:
        """Ask for its listeners in that namespace; see `added`."""
        info = pb.WorkloadInfo(
            name=pod.name, namespace=pod.namespace, service_account=pod.service_account
        )
        request = pb.WorkloadRequest(add=pb.AddWorkload(uid=pod.uid, workload_info=info))
        return self._send(request, [netns_fd])

    async def added(self, request: Asked) -> Descriptors:
        """Listeners of that namespace, as descriptors; none if it does not send them."""
        descriptors = await request.answer()
        self.is_ours = self.is_ours or len(descriptors) > 0
        self.is_side_by_side = self.is_side_by_side or self.is_ours  # older ones do not say so
        return descriptors

    def delete(self, uid: str) -> Asked:
        request = pb.WorkloadRequest()
        getattr(request, "del").uid = uid  # the field has a keyword's name
        return self._send(request)

    async def keep(self, uid: str) -> None:
        """Have the end of the snapshot leave this pod alone, if the ztunnel has it."""
        request = pb.WorkloadRequest(keep=pb.KeepWorkload(uid=uid))
        (await self._send(request).answer()).close()

    async def snapshot_sent(self) -> None:
        request = pb.WorkloadRequest(snapshot_sent=pb.SnapshotSent())
        (await self._send(request).answer()).close()

    def _send(self, request: pb.WorkloadRequest, fds: list[int] | None = None) -> Asked:
        data = request.SerializeToString()
        if len(data) > DATAGRAM_BYTES_MAX:
            raise ZtunnelRefused(f"a request of {len(data)} bytes")
        try:
            socket.send_fds(self._sock, [data], fds or [])
        except OSError as exc:
            raise ZtunnelLeft(f"send: {exc.strerror}") from exc
        waiting = asyncio.get_running_loop().create_future()
        self._answers.append(waiting)
        return Asked(waiting, self._deadline_s)

    async def read(self) -> None:
        """Hand each datagram to the request that waits for it; ends by raising."""
        while True:
            await readable(self._sock)
            try:
                data, fds = receive_message(self._sock, ANSWER_BYTES_MAX, DESCRIPTORS_MAX)
            except BlockingIOError:
                continue
            except OSError as exc:
                raise ZtunnelLeft(f"receive: {exc.strerror}") from exc
            received = Descriptors(list(fds))
            if not data and not fds:
                raise ZtunnelLeft("closed by the ztunnel")
            if self._hello.done() and data == LEAVING and not fds:
                self.is_leaving = True
                self.on_leaving()
                continue
            waiting = self._hello
            if waiting.done() and self._answers:
                waiting = self._answers.popleft()
            if waiting.done():  # nobody asked, or whoever did has given up
                received.close()
                raise WireError("an unexpected datagram")
            waiting.set_result((data, received))


async def readable(sock: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready: asyncio.Future[None] = loop.create_future()

    def wake() -> None:
        if not ready.done():
            ready.set_result(None)

    loop.add_reader(sock, wake)
    try:
        await ready
    finally:
        loop.remove_reader(sock)


ServeZtunnel = Callable[[Ztunnel], Awaitable[None]]


class ZdsServer:
    def __init__(
        self, serve_ztunnel: ServeZtunnel, clock: Clock, deadline_s: float = DEADLINE_S
    ) -> None:
        self._serve_ztunnel = serve_ztunnel
        self._clock = clock
        self._deadline_s = deadline_s
        self._numbers = 0
        self._live = 0

    async def run(self, listener: socket.socket) -> None:
        """Accept ztunnels on a listener made by `bound`, until cancelled."""
        loop = asyncio.get_running_loop()
        async with asyncio.TaskGroup() as tasks:
            while True:
                sock, _ = await loop.sock_accept(listener)
                tasks.create_task(self.serve(sock), name="ztunnel")
                await asyncio.sleep(1 / ACCEPTS_PER_S)

    async def serve(self, sock: socket.socket) -> None:
        """Serve one ztunnel. The boundary: its faults end its own connection and nothing else."""
        self._live += 1
        self._numbers += 1
        with sock:
            ztunnel = Ztunnel(self._numbers, sock, self._clock.now(), self._deadline_s)
            try:
                self._check(ztunnel)
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(ztunnel.read(), name="ztunnel.read")
                    await ztunnel.greeted()
                    event(log, logging.INFO, "ztunnel.connected", pid=ztunnel.pid)
                    await self._serve_ztunnel(ztunnel)
            except* (MeshError, OSError) as group:
                for exc in _leaves(group):
                    reason = exc.reason if isinstance(exc, MeshError) else "os"
                    event(
                        log,
                        logging.WARNING,
                        "ztunnel.gone",
                        pid=ztunnel.pid,
                        reason=reason,
                        error=exc,
                    )
            finally:
                self._live -= 1

    def _check(self, ztunnel: Ztunnel) -> None:
        if self._live > ZTUNNELS_MAX:
            raise ZtunnelRefused(f"more than {ZTUNNELS_MAX} ztunnels")
        if ztunnel.user not in (0, os.getuid()):
            raise ZtunnelRefused(f"user {ztunnel.user} may not be a ztunnel")
        if ztunnel.pid <= 0:
            raise ZtunnelRefused("its process cannot be seen from here (another pid namespace)")


def _leaves(
    group: BaseExceptionGroup[MeshError | OSError],
) -> Iterator[MeshError | OSError]:
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


def listening(sock: socket.socket) -> socket.socket:
    """The socket, as a listener for ztunnels."""
    sock.listen(ZTUNNELS_MAX)
    sock.setblocking(False)
    return sock
