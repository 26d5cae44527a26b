"""A worker in this process, at the other end of a socketpair, whose turns the test makes."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from control.kit.clock import SystemClock
from control.model.identity import SpiffeId
from tests.support.engine.rows import joined
from ztunnel.ipc import Frame, FrameKind, IpcSocket
from ztunnel.transport.keepalive import STEP_S
from ztunnel.transport.tls import Material
from ztunnel.worker.settings import WorkerSettings
from ztunnel.worker.worker import Worker

TURNS_MAX = 1000


class WorkerRig:
    def __init__(self, log_descriptor: int, settings: dict[str, Any], *frames: Frame) -> None:
        ours, theirs = socket.socketpair()
        self._theirs = theirs
        self.channel = IpcSocket(ours)
        self.worker = Worker(
            IpcSocket(theirs), SystemClock(), log_descriptor, WorkerSettings.parse(settings), frames
        )
        self._heard: list[Frame] = []

    def tell(self, kind: FrameKind, value: dict[str, Any], *descriptors: int) -> None:
        self.channel.send_json(kind, value, descriptors)
        self.settle()

    def settle(self) -> None:
        """Turn until nothing happens any more."""
        reactor = self.worker.reactor
        for _ in range(TURNS_MAX):
            before = reactor.served
            if reactor.running:
                waits = self.worker.engine.keepalive.waiting
                reactor.turn(STEP_S if waits else 0)
                if waits:
                    continue
            if reactor.served == before:
                return
        raise AssertionError("never at rest")

    def heard(self, kind: FrameKind) -> list[dict[str, Any]]:
        """Everything of this kind that the worker has said since the last time."""
        while received := self.channel.receive():
            self._heard += received
        found = [frame for frame in self._heard if frame.kind is kind]
        self._heard = [frame for frame in self._heard if frame.kind is not kind]
        return [frame.json() for frame in found]

    def ask(self, what: str) -> dict[str, Any]:
        self.tell(FrameKind.QUERY, {"id": 1, "what": what})
        return joined(self.heard(FrameKind.ANSWER))

    def counter(self, name: str, **labels: str) -> int | None:
        """A counter or gauge by its name, from the worker's own answer; None: there is none."""
        answer = self.ask("metrics")
        rows = answer["counters"] + answer["gauges"]
        found = [value for row, its, value in rows if (row, its) == (name, labels)]
        return found[0] if found else None

    def add_pod(self, uid: str, service_account: str) -> None:
        """A pod of the namespace `demo`, in the namespace of this process, on ports of its own."""
        claim = {"uid": uid, "name": uid, "namespace": "demo", "service_account": service_account}
        listeners = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
        netns = os.open("/proc/self/ns/net", os.O_RDONLY)
        self.tell(FrameKind.POD_ADD, claim, netns, *(each.fileno() for each in listeners))
        os.close(netns)
        for each in listeners:
            each.close()

    def certify(self, identity: SpiffeId, material: Material) -> None:
        self.tell(
            FrameKind.CERTIFICATE,
            {
                "identity": str(identity),
                "key_pem": material.key_pem.decode(),
                "chain_pem": [each.decode() for each in material.chain_pem],
                "roots_pem": material.roots_pem.decode(),
            },
        )

    def close(self) -> None:
        self.channel.close()
        for uid in list(self.worker.engine.pods):
            self.worker.engine.remove_pod(uid)
        self.worker.reactor.close()
        self._theirs.close()


@contextmanager
def worker_rig(*frames: Frame, **settings: Any) -> Iterator[WorkerRig]:
    """A worker whose lines go nowhere; `logging` is as before at the end."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    descriptor = os.open(os.devnull, os.O_WRONLY)
    rig = WorkerRig(descriptor, settings, *frames)
    try:
        yield rig
    finally:
        rig.close()
        os.close(descriptor)
        root.handlers[:] = handlers
        root.setLevel(level)
