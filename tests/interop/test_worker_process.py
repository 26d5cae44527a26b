"""A worker as the supervisor has it: a process, a socketpair, descriptors, frames."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from control.model.address import parse_address
from control.model.identity import SpiffeId
from control.model.policy import Action, Policy, PolicyScope, Rule
from control.model.workload import HBONE_PORT, TunnelProtocol, Workload
from tests.support.certificates import make_authority
from tests.support.engine.tunnel_bed import (
    CLIENT,
    App,
    Bed,
    dial,
    echo,
    is_reset,
    listener_at,
    loopback,
    read_all,
    read_exactly,
)
from tests.support.engine.tunnel_mesh import address_entry, mesh_entries, policy_entry
from ztunnel.ipc import Frame, FrameKind, IpcSocket, merge_answer
from ztunnel.mesh.entries import Entry, Op, encode_entries
from ztunnel.transport.tls import Material

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 20.0
WORKER_BYTES_MAX = 40 * 1024 * 1024  # the budget for one worker's resident memory
IDENTITIES = 500
KEPT_BYTES_MAX = 4 * 1024 * 1024  # 500 contexts are 14 MiB
IDENTITY = SpiffeId("cluster.local", "demo", "web")


class Supervised:
    def __init__(self) -> None:
        ours, theirs = socket.socketpair()
        os.set_inheritable(theirs.fileno(), True)
        command = [sys.executable, "-m", "ztunnel.worker", "--fd", str(theirs.fileno())]
        self.process = subprocess.Popen(
            command, cwd=ROOT, pass_fds=[theirs.fileno()], stderr=subprocess.PIPE
        )
        theirs.close()
        self.channel = IpcSocket(ours)
        self._frames: list[Frame] = []

    def next(self, kind: FrameKind) -> dict[str, Any]:
        end = time.monotonic() + DEADLINE_S
        while True:
            for frame in self._frames:
                if frame.kind is kind:
                    self._frames.remove(frame)
                    return frame.json()
            assert time.monotonic() < end, f"no {kind.name} came"
            self.channel.flush()
            received = self.channel.receive()
            assert received is not None, "the worker has ended"
            self._frames += received
            if not received:
                time.sleep(0.005)

    def close(self) -> str:
        self.channel.close()
        _, errors = self.process.communicate(timeout=DEADLINE_S)
        return errors.decode()


@pytest.fixture
def worker() -> Iterator[Supervised]:
    made = Supervised()
    made.next(FrameKind.READY)
    yield made
    if made.process.returncode is None:
        made.process.send_signal(signal.SIGKILL)
        made.process.wait(DEADLINE_S)


def certificate(material: Material) -> dict[str, Any]:
    return {
        "identity": str(IDENTITY),
        "key_pem": material.key_pem.decode(),
        "chain_pem": [each.decode() for each in material.chain_pem],
        "roots_pem": material.roots_pem.decode(),
    }


def workload(address: str, uid: str = "uid-1") -> Workload:
    return Workload(
        uid=uid,
        name="web-1",
        namespace="demo",
        service_account="web",
        addresses=(parse_address(address),),
        tunnel_protocol=TunnelProtocol.HBONE,
    )


def give_pod(worker: Supervised, address: str) -> tuple[str, int]:
    """One pod; where its plaintext listener is."""
    pod = workload(address)
    worker.channel.send_json(FrameKind.CONFIG, {"trust_domain": "cluster.local", "worker": 3})
    worker.channel.send(FrameKind.RESOURCES, encode_entries(mesh_entries(pod)))
    listeners = [listener_at(address, port) for port in (0, 0, HBONE_PORT)]
    netns = os.open("/proc/self/ns/net", os.O_RDONLY)
    worker.channel.send_json(
        FrameKind.POD_ADD,
        {"uid": "uid-1", "name": "web-1", "namespace": "demo", "service_account": "web"},
        [netns, *(each.fileno() for each in listeners)],
    )
    assert worker.next(FrameKind.POD_READY) == {"uid": "uid-1"}
    plaintext: tuple[str, int] = listeners[1].getsockname()
    os.close(netns)
    for each in listeners:
        each.close()
    return plaintext


def ask(worker: Supervised, what: str) -> dict[str, Any]:
    worker.channel.send_json(FrameKind.QUERY, {"id": 7, "what": what})
    answer: dict[str, Any] = {"more": True}
    while answer["more"]:
        merge_answer(answer, worker.next(FrameKind.ANSWER))
    assert answer["id"] == 7
    return answer


def settles_within(worker: Supervised, bytes_max: int) -> None:
    """Start-up pages are handed back some seconds after the start."""
    process = psutil.Process(worker.process.pid)
    end = time.monotonic() + DEADLINE_S
    while (memory := process.memory_info().rss) >= bytes_max:
        assert time.monotonic() < end, f"{memory} bytes"
        time.sleep(0.1)


def test_a_tunnel_client_reaches_an_app_through_the_process(worker: Supervised) -> None:
    """The other end is this test's own engine; see test_hbone_sockets_* for the details."""
    address = loopback()
    give_pod(worker, address)
    made = Bed(address)
    try:
        web = made.authority.issue(str(IDENTITY))
        made.client.apply(mesh_entries(made.client_workload, workload(address, "web")))
        made.client.certify(CLIENT, made.authority.issue(str(CLIENT)))
        app = App(address, echo)
        with dial(made.client.entry(made.endpoint(app.port))) as sock:
            sock.sendall(b"hello")
            assert worker.next(FrameKind.NEED_CERTIFICATE) == {
                "identity": str(IDENTITY),
                "waiting": True,
            }
            worker.channel.send_json(FrameKind.CERTIFICATE, certificate(web))
            assert read_exactly(sock, 5) == b"hello"
            shown = ask(worker, "connections")["connections"]["uid-1"]["inbound"]
            assert len(shown) == 1
            assert shown[0]["protocol"] == "HBONE"
            assert shown[0]["sourceIdentity"] == str(CLIENT)
            assert shown[0]["destinationIdentity"] == str(IDENTITY)
            assert shown[0]["bytesReceived"] == 5
            assert shown[0]["worker"] == 3
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""
        counters = {
            (name, labels.get("reporter")): value
            for name, labels, value in ask(worker, "metrics")["counters"]
        }
        assert counters["istio_tcp_connections_opened_total", "destination"] == 1
        assert counters["istio_tcp_connections_closed_total", "destination"] == 1
        assert counters["istio_tcp_received_bytes_total", "destination"] == 5
        assert counters["tulle_ztunnel_internal_errors_total", None] == 0
        settles_within(worker, WORKER_BYTES_MAX)
        app.close()
    finally:
        made.close()
    log = worker.close()
    assert "dst.workload=web-1" in log
    assert "direction=inbound bytes_sent=5 bytes_recv=5" in log


DENY = Policy("no", "demo", PolicyScope.WORKLOAD_SELECTOR, Action.DENY, (Rule(),))
GONE = Entry(Op.REMOVE_ADDRESS, "uid-1")


@pytest.mark.parametrize("frames", [1, 4], ids=["in one frame", "frame by frame"])
@pytest.mark.parametrize("goes", [False, True], ids=["stays", "goes and comes back"])
def test_a_pod_that_a_policy_selects_now_loses_its_open_connections(
    worker: Supervised, goes: bool, frames: int
) -> None:
    address = loopback()
    give_pod(worker, address)
    made = Bed(address)
    app = App(address, echo)
    try:
        worker.channel.send_json(
            FrameKind.CERTIFICATE, certificate(made.authority.issue(str(IDENTITY)))
        )
        made.client.apply(mesh_entries(made.client_workload, workload(address, "web")))
        made.client.certify(CLIENT, made.authority.issue(str(CLIENT)))
        with dial(made.client.entry(made.endpoint(app.port))) as sock:
            sock.sendall(b"hello")
            assert read_exactly(sock, 5) == b"hello"
            selected = replace(workload(address), authorization_policies=(DENY.key,))
            parts = [*([GONE] if goes else []), policy_entry(DENY), address_entry(selected)]
            size = len(parts) if frames == 1 else 1
            for start in range(0, len(parts), size):
                part = encode_entries(parts[start : start + size])
                worker.channel.send(FrameKind.RESOURCES, part)
                ask(worker, "pools")  # it has taken them
            with pytest.raises(ConnectionResetError):
                sock.recv(1)
        rows = ask(worker, "metrics")["counters"]
        name = ["tulle_ztunnel_refusals_total", {"reason": "policy_changed"}]
        assert [value for *row, value in rows if row == name] == [1]
    finally:
        app.close()
        made.close()


def test_nobody_reading_its_lines_stops_nothing(worker: Supervised) -> None:
    assert worker.process.stderr is not None
    fcntl.fcntl(worker.process.stderr, fcntl.F_SETPIPE_SZ, 4096)
    where = give_pod(worker, loopback())
    for _ in range(100):
        assert is_reset(where)  # as recursion, which gives a line
    end = time.monotonic() + DEADLINE_S
    while refused(worker) < 100:
        assert time.monotonic() < end, "the worker waits for its reader"
    assert worker.close().count("the port is the tunnel's own") == 100, "at the end they come"


def refused(worker: Supervised) -> int:
    rows = ask(worker, "metrics")["counters"]
    name = ("tulle_ztunnel_refusals_total", {"reason": "recursion"})
    return sum(value for *row, value in rows if tuple(row) == name)


def test_an_unusable_certificate_changes_nothing_and_is_counted(worker: Supervised) -> None:
    give_pod(worker, loopback())
    good = make_authority().issue(str(IDENTITY))
    worker.channel.send_json(FrameKind.CERTIFICATE, {**certificate(good), "key_pem": "nonsense"})
    counters = [(name, labels) for name, labels, _ in ask(worker, "metrics")["counters"]]
    assert ("tulle_ztunnel_refusals_total", {"reason": "unusable_certificate"}) in counters


def test_a_deleted_pod_gives_its_descriptors_back(worker: Supervised) -> None:
    give_pod(worker, loopback())
    held = psutil.Process(worker.process.pid).num_fds()
    worker.channel.send_json(FrameKind.POD_DELETE, {"uid": "uid-1"})
    ask(worker, "metrics")
    end = time.monotonic() + DEADLINE_S
    while psutil.Process(worker.process.pid).num_fds() != held - 4:
        assert time.monotonic() < end
        time.sleep(0.01)


def test_pods_that_come_and_go_leave_no_keys_behind(worker: Supervised) -> None:
    give_pod(worker, loopback())
    material = certificate(make_authority().issue(str(IDENTITY)))
    process = psutil.Process(worker.process.pid)

    def come_and_go(first: int) -> int:
        for number in range(first, first + IDENTITIES):
            identity = {"identity": str(SpiffeId("cluster.local", "demo", f"job-{number}"))}
            worker.channel.send_json(FrameKind.CERTIFICATE, {**material, **identity})
            worker.channel.send_json(FrameKind.CERTIFICATE_FORGOTTEN, identity)
        rows = ask(worker, "metrics")["gauges"]
        assert [value for name, _, value in rows if name == "tulle_ztunnel_tls_contexts"] == [0]
        return process.memory_info().rss

    before = come_and_go(0)  # the first ones warm things up
    assert come_and_go(IDENTITIES) - before < KEPT_BYTES_MAX


def test_draining_closes_the_listeners_and_ends(worker: Supervised) -> None:
    where = give_pod(worker, loopback())
    worker.channel.send_json(FrameKind.DRAIN, {"deadline_s": 5})
    assert worker.next(FrameKind.DRAINED) == {}
    with pytest.raises(ConnectionRefusedError):
        dial(where)


def test_a_worker_without_a_supervisor_ends(worker: Supervised) -> None:
    assert "supervisor.gone" in worker.close()
    assert worker.process.returncode == 0
