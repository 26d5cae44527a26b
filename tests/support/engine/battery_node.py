"""The worker of the battery: a process on a core of its own, with the neighbour's pod and one of
the attacker's, and small bounds."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

from control.model.address import parse_address
from control.model.workload import HBONE_PORT, TunnelProtocol, Workload
from tests.support.certificates import Authority, make_authority
from tests.support.engine.tunnel_bed import DEADLINE_S, listener_at, loopback
from tests.support.engine.tunnel_mesh import mesh_entries
from ztunnel.ipc import Frame, FrameKind, IpcSocket, merge_answer
from ztunnel.mesh.entries import encode_entries

ROOT = Path(__file__).resolve().parents[3]
MIB = 1024 * 1024
# Small enough for an attacker to reach each bound that descriptors lower in a second.
DESCRIPTORS = 2000
VICTIM_NICE = -5


class BatteryWorker:
    """A worker process with the neighbour's pod and one of the attacker's."""

    def __init__(self, core: int, *weaknesses: str) -> None:
        self.authority: Authority = make_authority()
        self.victim, self.evil, self.nobody = loopback(), loopback(), loopback()
        self.remote, passing = loopback(), loopback()
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tests.support.engine.battery_worker"]

        def prepare() -> None:
            resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
            os.sched_setaffinity(0, {core})
            with contextlib.suppress(PermissionError):
                os.setpriority(os.PRIO_PROCESS, 0, VICTIM_NICE)

        self.process = subprocess.Popen(
            [*command, str(theirs.fileno()), self.victim, *weaknesses],
            cwd=ROOT,
            pass_fds=[theirs.fileno()],
            stderr=subprocess.DEVNULL,
            # Compiled modules would not notice what is planted in the sources.
            env=os.environ | {"TULLE_COMPILED": "no"},
            preexec_fn=prepare,
        )
        theirs.close()
        self._channel = IpcSocket(ours)
        self._frames: list[Frame] = []
        self._next(FrameKind.READY)
        self._channel.send_json(FrameKind.CONFIG, {"trust_domain": "cluster.local", "worker": 0})
        pods = {"web": self.victim, "evil": self.evil, "nobody": self.nobody}
        pods["remote"] = self.remote
        values = [_workload(name, address) for name, address in pods.items()]
        self._channel.send(FrameKind.RESOURCES, encode_entries(mesh_entries(*values)))
        self.plaintext, self.outbound_honest = self._give_pod("web", self.victim)
        # By this address it is the app's port that was dialled (battery_worker.py).
        self.passing = (passing, self.plaintext[1])
        _, self.outbound = self._give_pod("evil", "")
        self._about = psutil.Process(self.process.pid)

    def _give_pod(self, name: str, address: str) -> tuple[tuple[str, int], int]:
        """Add a pod, and return its plaintext listener's address and its outbound port."""
        at = address or loopback()
        outbound, plain = listener_at("0.0.0.0", 0), listener_at("0.0.0.0", 0)
        listeners = [outbound, plain, listener_at(at, HBONE_PORT)]
        netns = os.open("/proc/self/ns/net", os.O_RDONLY)
        claim = {"uid": name, "name": name, "namespace": "demo", "service_account": name}
        self._channel.send_json(
            FrameKind.POD_ADD, claim, [netns, *(each.fileno() for each in listeners)]
        )
        self._next(FrameKind.POD_READY)
        where = (at, plain.getsockname()[1])
        port: int = outbound.getsockname()[1]
        os.close(netns)
        for each in listeners:
            each.close()
        identity = f"spiffe://cluster.local/ns/demo/sa/{name}"
        material = self.authority.issue(identity)
        shown = {
            "identity": identity,
            "key_pem": material.key_pem.decode(),
            "chain_pem": [each.decode() for each in material.chain_pem],
            "roots_pem": material.roots_pem.decode(),
        }
        self._channel.send_json(FrameKind.CERTIFICATE, shown)
        return where, port

    def _next(self, kind: FrameKind) -> dict[str, Any]:
        end = time.monotonic() + DEADLINE_S
        while True:
            for each in self._frames:
                if each.kind is kind:
                    self._frames.remove(each)
                    return each.json()
            assert time.monotonic() < end, f"no {kind.name} came"
            self._channel.flush()
            received = self._channel.receive()
            assert received is not None, "the worker has ended"
            self._frames += received
            if not received:
                time.sleep(0.005)

    def _ask(self, what: str) -> dict[str, Any]:
        self._channel.send_json(FrameKind.QUERY, {"id": 1, "what": what})
        answer: dict[str, Any] = {"more": True}
        while answer["more"]:
            merge_answer(answer, self._next(FrameKind.ANSWER))
        return answer

    def tenants(self, figure: str = "cpuMs") -> dict[str, int]:
        """A figure by tenant, as the admin page has it."""
        return {row["name"]: row[figure] for row in self._ask("connections")["tenants"]}

    def counters(self) -> dict[str, int]:
        rows = self._ask("metrics")["counters"]
        return {
            labels.get("reason", name.removeprefix("tulle_ztunnel_")): value
            for name, labels, value in rows
            if not name.startswith("istio_")
        }

    @property
    def mib(self) -> float:
        return float(self._about.memory_info().rss) / MIB

    @property
    def cpu_s(self) -> float:
        spent = self._about.cpu_times()
        return float(spent.user + spent.system)

    def close(self) -> None:
        self._channel.close()
        self.process.kill()
        self.process.wait(DEADLINE_S)


def _workload(name: str, address: str) -> Workload:
    return Workload(
        uid=name,
        name=name,
        namespace="demo",
        service_account=name,
        addresses=(parse_address(address),),
        tunnel_protocol=TunnelProtocol.HBONE,
    )
