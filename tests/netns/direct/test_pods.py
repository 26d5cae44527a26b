"""The direct path while pods lie, come, go and change sides, on the whole mesh."""

from __future__ import annotations

import errno
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from agent.lab import changes
from agent.lab.netns import NETNS_FOLDER, inside
from tests.support.kernel.netns import Pod, run
from tests.support.kernel.raw_tcp import ACK, SYN, send_segment
from tests.support.lab.churn import churning, only
from tests.support.lab.mesh_bed import PORT, SOCKET_S, Bed, Reply, is_closed, soon, speak
from tests.support.lab.mesh_direct import (
    chosen,
    connections,
    counter,
    deny,
    direct_mesh,
    goes_direct,
    vips,
)
from tests.support.lab.prober import Running, prober

BUSY_PORT = 7070
TURNS = 6  # changes of an address's owner
CHOSEN_A_TURN = 20  # connections of the kernel's own, before the address changes hands
PHASE_S = 0.15
MULTIPATH = 262

SERVICE = """\
apiVersion: v1
kind: Service
metadata: {name: churning, namespace: mesh}
spec:
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  selector: {tier: churn}
  ports: [{port: 80, targetPort: 8080}]
"""


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with direct_mesh(tmp_path_factory.mktemp("pods"), workers=1) as made:
        yield made


def pod(bed: Bed, name: str) -> Pod:
    return Pod.at(NETNS_FOLDER / bed.pod(name).netns)


def answered_in(running: Running, start_s: float, end_s: float) -> int:
    """Begun in between, and answered."""
    return sum(t.outcome == "answered" and start_s < t.started_s < end_s for t in running.tries)


def kernel_carries_some(bed: Bed) -> None:
    """Wait until it has, for without them nothing would be tested."""
    enough = chosen(bed) + CHOSEN_A_TURN
    soon(lambda: chosen(bed) >= enough, "the kernel carries some itself")


def test_an_address_with_a_new_owner_is_not_reached_by_an_old_verdict(bed: Bed) -> None:
    """One address, owned in turn by a pod that lets `client` in and by one that does not."""
    where = str(bed.lab.run_dir.parent / "lab" / "churn.yaml")
    bed.apply(SERVICE)
    closed: list[tuple[float, float]] = []
    with bed.policy(only("client"), only("other")):
        changes.apply(bed.lab, churning(bed.here, "client"), where)
        soon(lambda: len(vips(bed, "churning")) == 2, "the service")
        found = [(bed.address("churn", family), PORT) for family in (4, 6)]
        found += [(address, 80) for address in vips(bed, "churning").values()]
        goes_direct(bed, found[0][0]).close()
        with prober(bed, "client", *found) as running:
            for _ in range(TURNS // 2):
                soon(lambda: bed.ask("client", *found[0]) is Reply.ANSWERED, "may be called")
                kernel_carries_some(bed)
                changes.delete(bed.lab, "pod", "mesh", "churn")
                start_s = time.monotonic()
                changes.apply(bed.lab, churning(bed.here, "other"), where)
                assert [(bed.address("churn", family), PORT) for family in (4, 6)] == found[:2]
                soon(lambda: bed.ask("other", *found[0]) is Reply.ANSWERED, "the other's turn")
                time.sleep(PHASE_S)
                closed.append((start_s, time.monotonic()))
                changes.delete(bed.lab, "pod", "mesh", "churn")
                changes.apply(bed.lab, churning(bed.here, "client"), where)
        changes.delete(bed.lab, "pod", "mesh", "churn")
    assert [answered_in(running, *each) for each in closed] == [0] * len(closed)


def test_a_forged_syn_becomes_nobodys_connection(bed: Bed) -> None:
    """While a client's own SYN waits, vouched for, and after it was let in."""
    client, near = bed.address("client", 4), bed.address("near", 4)
    with inside(bed.pod("near").netns):
        listener = socket.create_server((near, BUSY_PORT), backlog=0)
    with listener, ExitStack() as stack:
        listener.settimeout(SOCKET_S)

        def is_direct() -> bool:
            before = counter(bed, "direct_vouched")
            stack.enter_context(bed.dial("client", near, BUSY_PORT))
            stack.enter_context(listener.accept()[0])
            return counter(bed, "direct_vouched") > before

        soon(is_direct, "a direct connection")
        stack.enter_context(bed.dial("client", near, BUSY_PORT))  # fills the queue
        waiting = stack.enter_context(bed.socket("client", 4))
        waiting.setblocking(False)
        assert waiting.connect_ex((near, BUSY_PORT)) == errno.EINPROGRESS
        name = waiting.getsockname()
        stack.enter_context(listener.accept()[0])
        before = counter(bed, "inbound_vouched")
        forge(bed, (client, name[1]), (near, BUSY_PORT), SYN, ACK)
        soon(lambda: counter(bed, "inbound_vouched") > before, "it looks right to the kernel")
        accepted, peer = listener.accept()
        with accepted:
            assert peer == (client, name[1])
            waiting.settimeout(SOCKET_S)
            waiting.sendall(b"mine")
            assert accepted.recv(16) == b"mine"
            forge(bed, (client, name[1]), (near, BUSY_PORT), SYN, ACK)
            before = counter(bed, "inbound_vouched")
            forge(bed, (client, name[1] ^ 1), (near, BUSY_PORT), SYN, ACK)
            waiting.sendall(b"still")
            assert accepted.recv(16) == b"still"
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()
        assert counter(bed, "inbound_vouched") == before


def forge(bed: Bed, source: tuple[str, int], target: tuple[str, int], *flags: int) -> None:
    for each in flags:
        send_segment(pod(bed, "stranger"), source, target, each)


def test_an_address_that_a_pod_gives_itself_changes_nothing(bed: Bed) -> None:
    client, near = bed.address("client", 4), bed.address("near", 4)
    goes_direct(bed, near).close()
    inner = ("ip", "-n", bed.pod("other").netns, "address")
    run(*inner, "add", f"{client}/32", "dev", "lo")
    try:
        with bed.policy(deny("other")):
            soon(lambda: bed.ask("other", near) is not Reply.ANSWERED, "the policy is there")
            before = chosen(bed)
            for _ in range(5):
                with bed.socket("other", 4) as sock:
                    sock.settimeout(0.5)
                    sock.bind((client, 0))
                    assert not connects(sock, near) or speak(sock) == ""
            # The answers to its own are its own to lose.
            assert chosen(bed) == before
            goes_direct(bed, near).close()
    finally:
        run(*inner, "del", f"{client}/32", "dev", "lo")


def connects(sock: socket.socket, address: str) -> bool:
    try:
        sock.connect((address, PORT))
    except OSError:
        return False
    return True


@pytest.mark.parametrize("change", ["path", "mode"])
def test_switches_of_a_namespace_under_load(bed: Bed, change: str) -> None:
    """To the tunnel and back, out of the mesh and back, while connections are made."""
    address = bed.address("near", 4)
    goes_direct(bed, address).close()
    with prober(bed, "client", (address, PORT), (vips(bed, "nearby")[4], 80)) as running:
        for _ in range(3):
            if change == "path":
                changes.label(bed.lab, "Namespace", "", "mesh", ["tulle.io/path=tunnel"])
                soon(lambda: bed.agent(bed.here)["direct"]["pods"] == 0, "nobody is direct")
                before = chosen(bed)
                time.sleep(PHASE_S)
                assert chosen(bed) == before
                changes.label(bed.lab, "Namespace", "", "mesh", ["tulle.io/path-"])
            else:
                bed.mode("mesh", "-")
                bed.wait_captured(())
                bed.mode("mesh", "=ambient")
                bed.wait_captured()
            goes_direct(bed, address).close()
    outcomes = Counter(each.outcome for each in running.tries)
    # The tunnel closes a few that are between two sides while a whole namespace changes sides.
    lost = outcomes.total() - outcomes["answered"]
    assert lost == outcomes["closed"]
    assert lost <= (outcomes.total() * 0.02 if change == "mode" else 0), outcomes


def mapped(bed: Bed, address: str) -> socket.socket:
    sock = bed.socket("client", 6)
    sock.connect((f"::ffff:{address}", PORT))
    return sock


def bound(bed: Bed, address: str) -> socket.socket:
    sock = bed.socket("client", 4)
    sock.bind((bed.address("client", 4), 0))
    sock.connect((address, PORT))
    return sock


def on_device(bed: Bed, address: str) -> socket.socket:
    sock = bed.socket("client", 4)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
    sock.connect((address, PORT))
    return sock


def connected_twice(bed: Bed, address: str) -> socket.socket:
    sock = bed.dial("client", address)
    sock.connect_ex((bed.address("server", 4), PORT))  # finishes the first
    assert sock.connect_ex((bed.address("server", 4), PORT)) == errno.EISCONN
    return sock


@pytest.mark.parametrize("make", [mapped, bound, on_device, connected_twice])
def test_whatever_socket_goes_direct_is_shown_and_cut(
    bed: Bed, make: Callable[[Bed, str], socket.socket]
) -> None:
    address = bed.address("near", 4)
    with made_direct(bed, make, address) as sock, bed.policy(deny("client")):
        assert is_closed(sock)
    soon(lambda: bed.ask("client", address) is Reply.ANSWERED, "let in again")


def made_direct(bed: Bed, make: Callable[[Bed, str], socket.socket], address: str) -> socket.socket:
    """The policy of an earlier test may still be going, which voids verdicts once more."""
    for _ in range(MADE_MAX):
        goes_direct(bed, address).close()
        sock = make(bed, address)
        assert speak(sock).startswith(bed.address("client", 4))
        if path_of(bed, sock) == "direct":
            return sock
        sock.close()
    pytest.fail(f"{MADE_MAX} sockets, and none went direct")


def path_of(bed: Bed, sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    named = f"{host.removeprefix('::ffff:')}:{port}"
    soon(lambda: named in dict(paths(bed)), f"a record of {named}")
    return dict(paths(bed))[named]


MADE_MAX = 3


def paths(bed: Bed) -> set[tuple[str, str]]:
    return {(each["src"], each["path"]) for each in connections(bed)}


def test_multipath_tcp_keeps_to_the_tunnel(bed: Bed) -> None:
    address = bed.address("near", 4)
    goes_direct(bed, address).close()
    before = chosen(bed)
    with bed.socket("client", 4, MULTIPATH) as sock:
        sock.connect((address, PORT))
        assert speak(sock)
    assert chosen(bed) == before
