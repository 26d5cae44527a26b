"""Ways around policy by the direct path that a pod has without any right of its own."""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from agent.lab.netns import inside
from tests.support.lab.mesh_bed import PORT, SOCKET_S, Bed, Reply, soon, speak
from tests.support.lab.mesh_direct import counter, deny, direct_mesh, goes_direct

BUSY_PORT = 7070
TCP_FASTOPEN_CONNECT = 30
GRACE_S = 0.3


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with direct_mesh(tmp_path_factory.mktemp("attack")) as made:
        yield made


def sysctl(bed: Bed, pod: str, name: str, value: str) -> None:
    with inside(bed.pod(pod).netns), open(f"/proc/sys/{name}", "w") as file:
        file.write(value)


def in_effect(bed: Bed, pod: str = "other") -> None:
    soon(
        lambda: all(bed.reach(pod, "near") is not Reply.ANSWERED for _ in range(8)),
        "the policy is there",
    )


def test_a_syn_that_was_put_off_does_not_arrive_after_a_policy(bed: Bed) -> None:
    """TCP_FASTOPEN_CONNECT: connect() returns at once, the SYN leaves with the first bytes."""
    address = bed.address("near", 4)
    sysctl(bed, "other", "net/ipv4/tcp_fastopen", "5")  # without a cookie
    goes_direct(bed, address, pod="other").close()
    with bed.socket("other", 4) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect((address, PORT))
        started_s = time.monotonic()
        with bed.policy(deny("other")):
            in_effect(bed)
            soon(lambda: time.monotonic() > started_s + GRACE_S, "it is late")
            assert speak(sock) == "", "as plaintext of nobody, whom the DENY does not name"
    soon(lambda: bed.reach("other", "near") is Reply.ANSWERED, "let in again")


def test_a_syn_that_is_sent_again_does_not_arrive_after_a_policy(bed: Bed) -> None:
    """The app's queue is full, so the kernel tries again a second later."""
    address = bed.address("near", 4)
    with inside(bed.pod("near").netns):
        listener = socket.create_server((address, BUSY_PORT), backlog=0)
    with listener, ExitStack() as stack:
        listener.settimeout(SOCKET_S)

        def accepted() -> socket.socket:
            return stack.enter_context(listener.accept()[0])

        def is_direct() -> bool:
            before = counter(bed, "direct_vouched")
            stack.enter_context(bed.dial("other", address, BUSY_PORT))
            accepted()
            return counter(bed, "direct_vouched") > before

        soon(is_direct, "a direct connection")
        stack.enter_context(bed.dial("other", address, BUSY_PORT))  # nobody accepts it
        late = stack.enter_context(bed.socket("other", 4))
        late.setblocking(False)
        assert late.connect_ex((address, BUSY_PORT)) == errno.EINPROGRESS
        with bed.policy(deny("other")):
            in_effect(bed)
            accepted()
            soon(lambda: late.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) != 0, "refused")
            listener.setblocking(False)
            with pytest.raises(BlockingIOError):
                listener.accept()
    soon(lambda: bed.reach("other", "near") is Reply.ANSWERED, "let in again")


@pytest.mark.parametrize("pod", ["client", "stranger"])
def test_a_pod_outside_the_mesh_is_neither_end(bed: Bed, pod: str) -> None:
    """From the mesh to `stranger`, and from `stranger` into it."""
    target = "stranger" if pod == "client" else "near"
    before = counter(bed, "direct_chosen")
    for _ in range(8):
        assert bed.reach(pod, target) is Reply.ANSWERED
        assert bed.reach(pod, target, 6) is Reply.ANSWERED
    assert counter(bed, "direct_chosen") == before
