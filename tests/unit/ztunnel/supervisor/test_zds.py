"""The conversation with the node agent, message by message."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control.kit.errors import WireError
from control.wire import zds_pb2 as pb
from tests.support.turns import turns_until
from ztunnel.supervisor.pods import Claim, Ready, WorkersNotReady
from ztunnel.supervisor.zds import Reply, ZdsClient, ZdsSession, ZdsStatus, parsed


@dataclass
class Pods:
    served: dict[str, Claim] = field(default_factory=dict)
    failing: bool = False
    held_back: dict[str, asyncio.Event] = field(default_factory=dict)

    def __contains__(self, uid: object) -> bool:
        return uid in self.served

    def add(self, claim: Claim, netns: int) -> Ready:
        os.close(netns)
        if self.failing:
            raise WorkersNotReady("0 of 1 workers listen")
        self.served[claim.uid] = claim
        return lambda: self.ready(claim.uid)

    async def ready(self, uid: str) -> tuple[int, ...]:
        if uid in self.held_back:
            await self.held_back[uid].wait()
        return (0, 1, 2) if self.held_back else (7, 8, 9)

    def delete(self, uid: str) -> None:
        self.served.pop(uid, None)

    def keep_only(self, uids: set[str]) -> None:
        for uid in self.served.keys() - uids:
            del self.served[uid]


@pytest.fixture
def handle() -> Iterator[int]:
    reader, writer = os.pipe()
    os.close(writer)
    yield reader
    with pytest.raises(OSError):
        os.fstat(reader)  # whatever happened, nobody kept it


def add(uid: str, name: str = "web", account: str = "web") -> bytes:
    info = pb.WorkloadInfo(name=name, namespace="shop", service_account=account)
    add = pb.AddWorkload(uid=uid, workload_info=info)
    return pb.WorkloadRequest(add=add).SerializeToString()


SNAPSHOT = pb.WorkloadRequest(snapshot_sent=pb.SnapshotSent()).SerializeToString()


def keep(uid: str) -> bytes:
    return pb.WorkloadRequest(keep=pb.KeepWorkload(uid=uid)).SerializeToString()


def delete(uid: str) -> bytes:
    request = pb.WorkloadRequest()
    getattr(request, "del").uid = uid
    return request.SerializeToString()


def ask(session: ZdsSession, data: bytes, *descriptors: int) -> Reply:
    async def answered() -> Reply:
        return await session.begin(parsed(data, descriptors), descriptors)()

    return asyncio.run(answered())


def test_an_add_is_answered_with_the_listeners(handle: int) -> None:
    pods = Pods()
    assert ask(ZdsSession(pods, ZdsStatus()), add("u"), handle) == Reply(descriptors=(7, 8, 9))
    assert pods.served["u"] == Claim("u", "web", "shop", "web")


def test_a_missing_account_is_the_default_one(handle: int) -> None:
    pods = Pods()
    ask(ZdsSession(pods, ZdsStatus()), add("u", account=""), handle)
    assert pods.served["u"].service_account == "default"


def test_a_failing_add_says_why_and_stays_named(handle: int) -> None:
    pods, status = Pods({"u": Claim("u", "web", "shop", "web")}, failing=True), ZdsStatus()
    session = ZdsSession(pods, status)
    assert "workers_not_ready" in ask(session, add("u"), handle).error
    assert ask(session, SNAPSHOT) == Reply()
    assert "u" in pods  # the agent meant to have it: it must not be dropped
    assert status.snapshot


def test_a_pod_that_is_refused_again_and_again_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    pods = Pods({"u": Claim("u", "web", "shop", "web")}, failing=True)
    session = ZdsSession(pods, ZdsStatus())
    for _ in range(3):
        assert ask(session, add("u"), os.dup(0)).error
    assert [each.message for each in caplog.records] == ["pod.not_added"]
    pods.failing = False
    assert not ask(session, add("u"), os.dup(0)).error
    pods.failing = True
    assert ask(session, add("u"), os.dup(0)).error  # after it was served, it is news
    ask(session, delete("u"))
    assert ask(session, add("u"), os.dup(0)).error
    assert [each.message for each in caplog.records] == ["pod.not_added"] * 3


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_descriptor(count: int) -> None:
    handles = [os.dup(0) for _ in range(count)]
    reply = ask(ZdsSession(Pods(), ZdsStatus()), add("u"), *handles)
    assert "one descriptor" in reply.error
    for each in handles:
        with pytest.raises(OSError):
            os.fstat(each)


def test_an_incomplete_claim(handle: int) -> None:
    assert ask(ZdsSession(Pods(), ZdsStatus()), add("u", name=""), handle).error


def test_pods_missing_from_a_snapshot_go_once() -> None:
    claims = {uid: Claim(uid, uid, "shop", "web") for uid in ("a", "b", "c")}
    pods, status = Pods(claims), ZdsStatus()
    session = ZdsSession(pods, status)
    ask(session, keep("a"))
    ask(session, keep("b"))
    ask(session, delete("b"))
    assert set(pods.served) == {"a", "c"}
    ask(session, SNAPSHOT)
    assert set(pods.served) == {"a"}
    pods.served["late"] = Claim("late", "late", "shop", "web")
    ask(session, SNAPSHOT)
    assert "late" in pods


def test_deleting_what_is_not_there_is_fine() -> None:
    assert ask(ZdsSession(Pods(), ZdsStatus()), delete("nobody")) == Reply()


@pytest.mark.parametrize("data", [b"", b"\xff\xff", pb.WorkloadRequest().SerializeToString()])
def test_another_language_ends_the_connection(data: bytes, handle: int) -> None:
    with pytest.raises(WireError):
        ask(ZdsSession(Pods(), ZdsStatus()), data, handle)


def test_replies_are_acknowledgements_of_bounded_size() -> None:
    assert pb.WorkloadResponse.FromString(Reply().message()).WhichOneof("payload") == "ack"
    for text in ("x", "ü€", "\udcff"):  # letters of several bytes, and none at all
        assert len(Reply(text * 5_000).message()) < 1024


@given(st.binary(max_size=200))
def test_any_bytes_are_a_reply_or_a_wire_error(data: bytes) -> None:
    try:
        assert isinstance(ask(ZdsSession(Pods(), ZdsStatus()), data), Reply)
    except WireError:
        pass


def test_who_may_not_connect_does_not(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "zds.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
            agent.bind(str(path))
            agent.listen()
            agent.setblocking(False)
            asked = asyncio.Event()
            allowed = False

            def may() -> bool:
                asked.set()
                return allowed

            async with asyncio.TaskGroup() as tasks:
                client = tasks.create_task(ZdsClient(path, Pods(), may).run())
                await asked.wait()
                with pytest.raises(BlockingIOError):
                    agent.accept()
                allowed = True
                accepted, _ = await asyncio.get_running_loop().sock_accept(agent)
                accepted.close()
                client.cancel()

    asyncio.run(test())


def test_the_agent_is_told_that_we_are_going_to_end_and_a_new_one_too(tmp_path: Path) -> None:
    async def test() -> None:
        loop, path = asyncio.get_running_loop(), tmp_path / "zds.sock"
        hello = pb.ZdsHello(version=pb.V1, side_by_side=True).SerializeToString()
        leaving = pb.ZdsHello(version=pb.V1).SerializeToString()
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
            agent.bind(str(path))
            agent.listen()
            agent.setblocking(False)
            client = ZdsClient(path, Pods())
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(client.run())
                first, _ = await loop.sock_accept(agent)
                with first:
                    assert await loop.sock_recv(first, 100) == hello
                    await turns_until(lambda: client.status.connected)
                    client.leave()
                    assert await loop.sock_recv(first, 100) == leaving
                second, _ = await loop.sock_accept(agent)
                with second:
                    assert await loop.sock_recv(second, 100) == hello
                    assert await loop.sock_recv(second, 100) == leaving
                running.cancel()

    asyncio.run(test())


def test_pods_are_added_side_by_side_and_answered_in_order(tmp_path: Path) -> None:
    """A node's 200 pods waited for each other's certificates: 2 s after a restart."""

    async def test() -> None:
        loop, path = asyncio.get_running_loop(), tmp_path / "zds.sock"
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
            agent.bind(str(path))
            agent.listen()
            agent.setblocking(False)
            pods = Pods(held_back={"a": asyncio.Event()})
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                running = tasks.create_task(ZdsClient(path, pods).run())
                ours, _ = await loop.sock_accept(agent)
                with ours:
                    await loop.sock_recv(ours, 100)
                    for uid in ("a", "b"):
                        socket.send_fds(ours, [add(uid)], [0])
                    await loop.sock_sendall(ours, delete("b"))
                    await turns_until(lambda: "b" in pods.served)
                    for _ in range(20):
                        await asyncio.sleep(0)
                    assert "b" in pods.served, "its descriptors are still to be sent"
                    with pytest.raises(BlockingIOError):
                        ours.recv(1)
                    pods.held_back["a"].set()
                    for count in (3, 3, 0):
                        answer = await loop.run_in_executor(None, received, ours)
                        assert len(answer) == count
                    assert set(pods.served) == {"a"}
                    running.cancel()

    asyncio.run(test())


def received(sock: socket.socket) -> list[int]:
    """Descriptors of the next answer, closed."""
    sock.settimeout(5)
    _, descriptors, _, _ = socket.recv_fds(sock, 1024, 8)
    for each in descriptors:
        os.close(each)
    return descriptors
