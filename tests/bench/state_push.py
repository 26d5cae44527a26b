"""The price of a push of many workloads in a worker's loop: longest turn, total time, memory.

    state_push.py [--workloads N]

A real worker process gets the push over its pipe, as from the supervisor, and times its own turns:
CPU time, which other programs of the machine do not disturb, and wall time beside it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import pathlib
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

from control.kit.memory import spare_collector
from control.model.address import Address
from control.model.workload import (
    Locality,
    NetworkAddress,
    Port,
    Service,
    TunnelProtocol,
    Workload,
)
from control.wire.convert import resource_to_wire
from ztunnel.ipc import FrameKind, IpcSocket, encode_json
from ztunnel.mesh.entries import Entry, Op, chunks
from ztunnel.worker.process import keep_buffers, start

PODS_PER_SERVICE = 20
DEADLINE_S = 60.0


# -- the push ------------------------------------------------------------------------------------


def service(number: int) -> Service:
    name = f"service-{number}"
    return Service(
        name=name,
        namespace="shop",
        hostname=f"{name}.shop.svc.cluster.local",
        addresses=(NetworkAddress("", Address((0x0A600000 + number).to_bytes(4)), None),),
        ports=(Port(80, 8080),),
        canonical=True,
    )


def workload(number: int, serves: int, revision: str = "v1") -> Workload:
    """A pod as Istio's control plane describes one."""
    owner = f"service-{number // PODS_PER_SERVICE}"
    name = f"{owner}-6d8f7c9b5-{number:05x}"
    return Workload(
        uid=f"Kubernetes//Pod/shop/{name}",
        name=name,
        namespace="shop",
        service_account=owner,
        addresses=(Address((0x0A800000 + number).to_bytes(4)), Address(number.to_bytes(16))),
        tunnel_protocol=TunnelProtocol.HBONE,
        node=f"node-{number % 100}",
        canonical_name=owner,
        canonical_revision=revision,
        workload_name=owner,
        services={service(serves).key: (Port(80, 8080),)},
        locality=Locality("region-1", f"zone-{number % 3}"),
    )


def put(values: Iterable[Workload | Service]) -> Iterator[Entry]:
    for value in values:
        name = value.uid if isinstance(value, Workload) else value.key
        yield Entry(Op.ADDRESS, name, resource_to_wire(value).SerializeToString())


def scenarios(count: int) -> Iterator[tuple[str, list[Entry]]]:
    spread = [workload(number, number // PODS_PER_SERVICE) for number in range(count)]
    services = [service(number) for number in range(count // PODS_PER_SERVICE + 1)]
    yield "snapshot", [*put(services), *put(spread), Entry(Op.SNAPSHOT)]
    yield "updates", list(put(replace(each, canonical_revision="v2") for each in spread))
    yield "all in one service", list(put(workload(number, 0) for number in range(count)))
    yield "service changes", list(put([replace(services[0], ports=(Port(81, 8081),))]))
    yield "removals", [Entry(Op.REMOVE_ADDRESS, each.uid) for each in spread]
    yield "snapshot again", [*put(services), *put(spread), Entry(Op.SNAPSHOT)]


# -- the worker's side ---------------------------------------------------------------------------


def timed_worker(descriptor: int) -> None:
    """`ztunnel.worker` with a clock around each turn; SIGUSR1: say what was found."""
    spare_collector()
    worker = start(IpcSocket(socket.socket(fileno=descriptor)), sys.stderr.fileno())
    assert worker is not None
    keep_buffers()
    found = {"longest_ms": 0.0, "cpu_ms": 0.0, "turns": 0}

    def tell(*_: object) -> None:
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        found.update(longest_ms=0.0, cpu_ms=0.0, turns=0)

    signal.signal(signal.SIGUSR1, tell)
    while worker.reactor.running:
        before_ms = 1000 * time.thread_time()
        worker.reactor.turn(1.0)
        took_ms = 1000 * time.thread_time() - before_ms
        found["turns"] += 1
        found["cpu_ms"] += took_ms
        found["longest_ms"] = max(found["longest_ms"], took_ms)


# -- the supervisor's side -----------------------------------------------------------------------


class Pipe:
    """The supervisor's end of the pipe, blocking."""

    def __init__(self, sock: socket.socket) -> None:
        self._ipc = IpcSocket(sock)
        self._poll = select.poll()
        self._questions = 0

    def send(self, kind: FrameKind, payload: bytes) -> None:
        self._ipc.send(kind, payload)
        while self._ipc.wants_write:
            self._poll.register(self._ipc.fileno(), select.POLLOUT)
            self._poll.poll(1000 * DEADLINE_S)
            self._ipc.flush()

    def settled(self) -> None:
        """Wait until the worker has acted on everything: frames and answers keep their order."""
        self._questions += 1
        self.send(FrameKind.QUERY, encode_json({"id": self._questions, "what": "metrics"}))
        self._poll.register(self._ipc.fileno(), select.POLLIN)
        while True:
            if not self._poll.poll(1000 * DEADLINE_S):
                raise SystemExit("the worker does not answer")
            frames = self._ipc.receive()
            if frames is None:
                raise SystemExit("the worker is gone")
            for frame in frames:
                if frame.kind is not FrameKind.ANSWER:
                    continue
                piece = frame.json()
                if piece["id"] == self._questions and not piece["more"]:
                    return


def rss_kib(pid: int) -> int:
    for line in pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Rss:"):
            return int(line.split()[1])
    raise SystemExit("no Rss")


def run(count: int) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        process = subprocess.Popen(
            [sys.executable, __file__, "--worker", str(theirs.fileno())],
            pass_fds=(theirs.fileno(),),
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        pipe = Pipe(ours)
        pipe.send(FrameKind.CONFIG, encode_json({"node": "node-1", "log_level": "warning"}))
        pipe.settled()
        turns(process)
        sys.stdout.write(f"{'':>20} longest turn   CPU in all   until done   turns        RSS\n")
        for name, entries in [("start", []), *scenarios(count)]:
            payloads = list(chunks(entries))
            start_s = time.monotonic()
            for payload in payloads:
                pipe.send(FrameKind.RESOURCES, payload)
            pipe.settled()
            took_ms = 1000 * (time.monotonic() - start_s)
            found = turns(process)
            sys.stdout.write(
                f"{name:>20} {found['longest_ms']:9.2f} ms {found['cpu_ms']:9.0f} ms "
                f"{took_ms:9.0f} ms {found['turns']:7} {rss_kib(process.pid):7} KiB\n"
            )
    finally:
        process.kill()
        process.wait(DEADLINE_S)


def turns(process: subprocess.Popen[str]) -> dict[str, float]:
    process.send_signal(signal.SIGUSR1)
    assert process.stdout is not None
    found: dict[str, float] = json.loads(process.stdout.readline())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", type=int, default=10_000)
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker is not None:
        os.set_inheritable(options.worker, False)
        with contextlib.suppress(KeyboardInterrupt):
            timed_worker(options.worker)
    else:
        run(options.workloads)


if __name__ == "__main__":
    main()
