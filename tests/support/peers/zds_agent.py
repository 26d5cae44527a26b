"""The agent's end of ZDS for tests: listens, hands out pods, keeps the answers."""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from control.wire import zds_pb2 as pb

DEADLINE_S = 15.0


@dataclass
class Answer:
    error: str
    sockets: list[socket.socket]

    def close(self) -> None:
        for each in self.sockets:
            each.close()


class ZdsAgent:
    """One ztunnel at a time: `accept()`, then one request after the other."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._tunnel: socket.socket | None = None

    async def accept(self) -> pb.ZdsHello:
        async with asyncio.timeout(DEADLINE_S):
            self._tunnel, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        return pb.ZdsHello.FromString((await self._receive())[0])

    async def add(self, uid: str, name: str, namespace: str, account: str, netns: Path) -> Answer:
        info = pb.WorkloadInfo(name=name, namespace=namespace, service_account=account)
        request = pb.WorkloadRequest(add=pb.AddWorkload(uid=uid, workload_info=info))
        handle = os.open(netns, os.O_RDONLY)
        try:
            return await self.ask(request, [handle])
        finally:
            os.close(handle)

    async def delete(self, uid: str) -> Answer:
        request = pb.WorkloadRequest()
        getattr(request, "del").uid = uid
        return await self.ask(request)

    async def snapshot_sent(self) -> Answer:
        return await self.ask(pb.WorkloadRequest(snapshot_sent=pb.SnapshotSent()))

    async def ask(
        self, request: pb.WorkloadRequest, descriptors: list[int] | None = None
    ) -> Answer:
        assert self._tunnel is not None
        data = request.SerializeToString()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors or []))
        self._tunnel.sendmsg([data], [rights] if descriptors else [])
        answer, sockets = await self._receive()
        response = pb.WorkloadResponse.FromString(answer)
        assert response.WhichOneof("payload") == "ack"
        return Answer(response.ack.error, sockets)

    async def _receive(self) -> tuple[bytes, list[socket.socket]]:
        assert self._tunnel is not None
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._tunnel, ready.set)
        try:
            async with asyncio.timeout(DEADLINE_S):
                await ready.wait()
        finally:
            loop.remove_reader(self._tunnel)
        data, descriptors, _, _ = socket.recv_fds(self._tunnel, 4096, 8)
        return data, [socket.socket(fileno=each) for each in descriptors]

    def hang_up(self) -> None:
        if self._tunnel is not None:
            self._tunnel.close()
            self._tunnel = None


@contextmanager
def zds_agent(path: Path) -> Iterator[ZdsAgent]:
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    with listener:
        listener.bind(str(path))
        listener.listen(8)
        agent = ZdsAgent(listener)
        try:
            yield agent
        finally:
            agent.hang_up()
