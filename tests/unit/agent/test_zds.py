"""ZDS over a real socket pair: framing, descriptors, lock-step, and what a peer may do wrong."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent import zds
from agent.zds import PodInfo, Ztunnel
from control.kit import unix_socket
from control.kit.clock import SystemClock
from control.kit.errors import MeshError, PeerError, WireError
from control.wire import zds_pb2 as pb
from ztunnel.supervisor.bind import NamespaceUnusable
from ztunnel.supervisor.pods import TooManyPods, WorkersNotReady

POD = PodInfo("uid-1", "web", "shop", "default")
HELLO = pb.ZdsHello(version=pb.V1).SerializeToString()
_NULL = os.open(os.devnull, os.O_RDONLY)  # stands for a namespace: any descriptor travels
ACK = pb.WorkloadResponse(ack=pb.Ack()).SerializeToString()


def refusal(text: str) -> bytes:
    return pb.WorkloadResponse(ack=pb.Ack(error=text)).SerializeToString()


class Peer:
    """The ztunnel's end."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.setblocking(False)

    async def receive(self) -> tuple[pb.WorkloadRequest, list[int]]:
        await zds.readable(self.sock)
        data, fds, _, _ = socket.recv_fds(self.sock, 1024, 4)
        return pb.WorkloadRequest.FromString(data), fds

    def answer(self, data: bytes, fds: list[int] | None = None) -> None:
        socket.send_fds(self.sock, [data], fds or [])


def talk(
    serve: Callable[[Ztunnel], Awaitable[None]],
    peer: Callable[[Peer], Awaitable[None]],
    deadline_s: float = zds.DEADLINE_S,
) -> list[Exception]:
    """Both ends at once; what the agent's end raised."""
    raised: list[Exception] = []

    async def guarded(ztunnel: Ztunnel) -> None:
        try:
            await serve(ztunnel)
        except MeshError as exc:
            raised.append(exc)
            raise

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        server = zds.ZdsServer(guarded, SystemClock(), deadline_s)
        with theirs:
            async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
                tasks.create_task(server.serve(ours))
                await peer(Peer(theirs))
                theirs.close()

    asyncio.run(run())
    return raised


async def idle(ztunnel: Ztunnel) -> None:
    await asyncio.Event().wait()


def test_an_add_carries_the_namespace_and_brings_the_listeners_back() -> None:
    got: list[int] = []
    done = asyncio.Event()

    async def serve(ztunnel: Ztunnel) -> None:
        listeners = await ztunnel.added(ztunnel.add(POD, _NULL))
        got.extend(os.fstat(fd).st_ino for fd in listeners.numbers)
        done.set()
        assert ztunnel.is_ours
        assert ztunnel.is_side_by_side, "an older one, which does not say so"
        listeners.close()

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        request, fds = await end.receive()
        assert request.add.uid == "uid-1"
        info = request.add.workload_info
        assert (info.name, info.namespace, info.service_account) == ("web", "shop", "default")
        assert [os.fstat(fd).st_rdev for fd in fds] == [os.stat(os.devnull).st_rdev]
        os.close(fds[0])
        read, write = os.pipe()
        end.answer(ACK, [read, write, write])
        os.close(read)
        os.close(write)
        await done.wait()

    assert talk(serve, peer) == []
    assert len(got) == 3


def test_requests_are_what_istio_expects() -> None:
    async def serve(ztunnel: Ztunnel) -> None:
        await ztunnel.delete("uid-1").answer()
        await ztunnel.snapshot_sent()
        assert not ztunnel.is_ours

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        request, _ = await end.receive()
        assert getattr(request, "del").uid == "uid-1"
        end.answer(ACK)
        request, _ = await end.receive()
        assert request.SerializeToString() == b"\x1a\x00"
        end.answer(ACK)
        await asyncio.sleep(0.01)

    assert talk(serve, peer) == []


@pytest.mark.parametrize("says_so", [True, False])
def test_one_may_say_at_once_that_it_takes_requests_side_by_side(says_so: bool) -> None:
    """A restarted ztunnel was first asked for one pod alone, until that had its certificate."""
    found: list[bool] = []
    done = asyncio.Event()

    async def serve(ztunnel: Ztunnel) -> None:
        found.append(ztunnel.is_side_by_side)
        done.set()

    async def peer(end: Peer) -> None:
        end.answer(pb.ZdsHello(version=pb.V1, side_by_side=says_so).SerializeToString())
        await done.wait()

    assert talk(serve, peer) == []
    assert found == [says_so]


def test_requests_need_not_wait_for_each_other_and_are_answered_in_their_order() -> None:
    async def serve(ztunnel: Ztunnel) -> None:
        first, second = ztunnel.add(POD, _NULL), ztunnel.delete("uid-2")
        assert len(await ztunnel.added(first)) == 1
        with pytest.raises(zds.ZtunnelRefused, match="unknown"):
            await second.answer()

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        _, fds = await end.receive()
        request, _ = await end.receive()
        assert getattr(request, "del").uid == "uid-2"
        end.answer(ACK, fds)
        end.answer(refusal("unknown"))
        os.close(fds[0])
        await asyncio.sleep(0.01)

    assert talk(serve, peer) == []


def test_descriptors_of_an_answer_that_nobody_waits_for_any_more_are_closed() -> None:
    async def scenario() -> None:
        waiting = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(zds.Asked(waiting, 5.0).answer())  # noqa: TID251 ends below
        await asyncio.sleep(0)
        read, write = os.pipe()
        waiting.set_result((ACK, zds.Descriptors([read, write])))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        for each in (read, write):
            with pytest.raises(OSError):
                os.fstat(each)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("too_many_pods: more than 1024 pods on one node", "too_many_pods"),
        ("workers_not_ready: 0 of 1 workers listen", "workers_not_ready"),
        ("netns_unusable: cannot listen", "netns_unusable"),
        ("too_many_pods", "too_many_pods"),
        ("anything: else", "ztunnel_refused"),  # a foreign one's words are no label of a metric
        ("", "ztunnel_refused"),
    ],
)
def test_our_ztunnels_reason_is_the_pods(error: str, reason: str) -> None:
    refused = zds.refused(error)
    assert (refused.reason, str(refused)) == (reason, error)


def test_our_ztunnels_reasons_are_its_own() -> None:
    own = {each.reason for each in (TooManyPods, WorkersNotReady, NamespaceUnusable)}
    assert zds._REFUSALS.keys() == own


def test_a_refused_pod_leaves_the_connection_usable() -> None:
    async def serve(ztunnel: Ztunnel) -> None:
        with pytest.raises(zds.ZtunnelRefused, match="no such thing"):
            await ztunnel.added(ztunnel.add(POD, _NULL))
        await ztunnel.snapshot_sent()

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        _, fds = await end.receive()
        os.close(fds[0])
        end.answer(refusal("no such thing"))
        request, _ = await end.receive()
        assert request.HasField("snapshot_sent")
        end.answer(ACK)
        await asyncio.sleep(0.01)

    assert talk(serve, peer) == []


@pytest.mark.parametrize(
    "hello", [b"", b"\xff\xff", pb.ZdsHello().SerializeToString(), b"\x08\x07"]
)
def test_a_wrong_hello_is_never_served(hello: bytes) -> None:
    served = []

    async def serve(ztunnel: Ztunnel) -> None:
        served.append(ztunnel)

    async def peer(end: Peer) -> None:
        end.answer(hello)
        await zds.readable(end.sock)
        assert end.sock.recv(10) == b""

    talk(serve, peer)
    assert served == []


@pytest.mark.parametrize(
    ("answers", "error"),
    [
        ([b"\xff\xff"], WireError),
        ([b""], PeerError),
        ([pb.WorkloadResponse().SerializeToString() or b"\x12\x00"], WireError),
        ([ACK + bytes(zds.ANSWER_BYTES_MAX)], PeerError),
    ],
)
def test_a_broken_answer_ends_the_connection(answers: list[bytes], error: type[Exception]) -> None:
    async def serve(ztunnel: Ztunnel) -> None:
        await ztunnel.snapshot_sent()
        raise AssertionError("not reached")

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        await end.receive()
        for answer in answers:
            end.answer(answer)
        await zds.readable(end.sock)
        assert end.sock.recv(10) == b""

    raised = talk(serve, peer)
    assert all(isinstance(exc, error) for exc in raised)


def test_an_answer_nobody_asked_for_ends_the_connection() -> None:
    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        await asyncio.sleep(0.01)
        end.answer(ACK)
        await zds.readable(end.sock)
        assert end.sock.recv(10) == b""

    talk(idle, peer)


def test_a_ztunnel_that_goes_ends_its_track() -> None:
    ended = []

    async def serve(ztunnel: Ztunnel) -> None:
        try:
            await idle(ztunnel)
        finally:
            ended.append(ztunnel.pid)

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        await asyncio.sleep(0.01)

    talk(serve, peer)
    assert ended == [os.getpid()]


def test_a_silent_ztunnel_is_given_up() -> None:
    async def serve(ztunnel: Ztunnel) -> None:
        await ztunnel.snapshot_sent()

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        await end.receive()
        await zds.readable(end.sock)

    (slow,) = talk(serve, peer, deadline_s=0.02)
    assert isinstance(slow, zds.ZtunnelSlow)


@settings(max_examples=40, deadline=None)
@given(st.binary(max_size=200))
def test_any_answer_is_an_acknowledgement_or_a_peer_error(answer: bytes) -> None:
    outcome: list[str] = []

    async def serve(ztunnel: Ztunnel) -> None:
        try:
            await ztunnel.snapshot_sent()
            outcome.append("acknowledged")
        except PeerError as exc:
            outcome.append(exc.reason)

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        await end.receive()
        end.answer(answer)
        end.sock.setblocking(True)
        end.sock.shutdown(socket.SHUT_WR)
        await asyncio.sleep(0.001)

    talk(serve, peer)
    assert len(outcome) <= 1


def test_a_listener_takes_ztunnels_without_waiting(tmp_path: Path) -> None:
    with zds.listening(unix_socket.bind(tmp_path / "zds.sock", socket.SOCK_SEQPACKET)) as listener:
        assert listener.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
        with pytest.raises(BlockingIOError):
            listener.accept()


def test_a_second_hello_says_that_it_is_going_to_end_whatever_is_asked_meanwhile() -> None:
    told: list[bool] = []

    async def serve(ztunnel: Ztunnel) -> None:
        ztunnel.on_leaving = lambda: told.append(ztunnel.is_leaving)
        await ztunnel.keep("uid")
        await ztunnel.snapshot_sent()

    async def peer(end: Peer) -> None:
        end.answer(HELLO)
        request, _ = await end.receive()
        assert request.keep.uid == "uid"
        end.answer(HELLO)
        end.answer(ACK)
        request, _ = await end.receive()
        assert request.HasField("snapshot_sent")
        end.answer(ACK)

    talk(serve, peer)
    assert told == [True]
