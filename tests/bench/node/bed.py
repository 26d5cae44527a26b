"""One node with many pods: a lab of two nodes, and namespaces that are pods of the first one.

The pods run nothing. The bench opens their sockets itself, in their namespaces, towards a server on
the other node.
"""

from __future__ import annotations

import json
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from agent.lab import netns
from agent.lab.lab import Lab, Options
from agent.lab.netns import NETNS_FOLDER, inside
from tests.bench import manifests
from tests.bench.model import BenchError
from tests.support.lab.crowd import Crowd, CrowdPod, each_of

RUN_DIR = Path("/run/tulle-bench-node")
LAB, NODE, FAR = "tb-many", "tb-m1", "tb-m2"
PODS, SERVERS = "many", "far"
PORT = 7000
CAPTURED_S = 60.0
CONNECT_S = 5.0
ECHO = """
import asyncio

async def echo(reader, writer):
    while data := await reader.read(65536):
        writer.write(data)
    writer.close()

async def main():
    server = await asyncio.start_server(echo, None, {port}, backlog=4096)
    await server.serve_forever()

asyncio.run(main())
"""


class ManyPods(Crowd):
    def __init__(self, lab: Lab) -> None:
        super().__init__(lab, NODE, PODS)
        self.in_use = False  # the agent has seen the connections of those that are probed
        self.server = self.state.pods[f"{SERVERS}/server"].address.v4, PORT

    # -- the mesh --------------------------------------------------------------------------------

    def captured(self) -> int:
        return sum(
            each["state"] == "captured" and each["namespace"] == PODS
            for each in self.status()["pods"]
        )

    def pid(self, name: str) -> int:
        return self.lab.store.load().processes[f"{name}-{NODE}"].pid

    def log(self, name: str) -> Path:
        return self.lab.run_dir / "logs" / f"{name}-{NODE}.log"

    # -- connections -----------------------------------------------------------------------------

    def connect(self, pod: CrowdPod, timeout_s: float = CONNECT_S) -> socket.socket:
        with inside(pod.netns):
            made = socket.socket()
        made.settimeout(timeout_s)
        try:
            made.connect(self.server)
        except OSError:
            made.close()
            raise
        return made

    def answers(self, pod: CrowdPod, timeout_s: float = CONNECT_S) -> bool:
        """One connection, one byte there and back."""
        try:
            with self.connect(pod, timeout_s) as made:
                made.sendall(b"x")
                return made.recv(1) == b"x"
        except OSError:
            return False


def wait(condition: Callable[[], bool], what: str, timeout_s: float = CAPTURED_S) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise BenchError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.05)


@contextmanager
def many_pods(count: int, workers: int = 1) -> Iterator[tuple[ManyPods, list[CrowdPod]]]:
    """A node with `count` pods, which are registered and not enrolled."""
    lab = Lab(RUN_DIR)
    with tempfile.TemporaryDirectory(prefix="tulle-bench-") as work:
        lab.down()  # left by a run that was killed
        for left in NETNS_FOLDER.glob(f"tl-{LAB}-*"):
            netns.remove(left.name)
        _write_lab(Path(work))
        bed: ManyPods | None = None
        try:
            lab.up(Path(work), Options(workers=workers))
            bed = ManyPods(lab)
            pods = [bed.pod("m", number, number) for number in range(count)]
            bed.label(enrolled=False)
            bed.write("many-pods.yaml", [pod.manifest() for pod in pods])
            each_of(pods, bed.build, 4)
            bad = [found for found in each_of(pods, bed.register) if found[0] != 200]
            if bad:
                raise BenchError(f"{len(bad)} pods were not registered: {bad[:3]}")
            yield bed, pods
        finally:
            if bed is not None:
                bed.remove_all()
            lab.down()


def _write_lab(folder: Path) -> None:
    script = folder / "echo.py"
    script.write_text(ECHO.format(port=PORT))
    server = {"node": FAR, "command": [sys.executable, "-I", "-S", str(script)]}
    spec = {
        "name": LAB,
        "nodes": {NODE: {}, FAR: {}},
        "pods": {f"{SERVERS}/server": {**server, "ready": {"tcp": PORT}}},
    }
    objects = [
        manifests.namespace("istio-system"),
        manifests.namespace(SERVERS, enrolled=True),
        manifests.pod(SERVERS, "server"),
    ]
    (folder / "lab.yaml").write_text(json.dumps(spec))
    (folder / "manifests.yaml").write_text(manifests.documents(objects))
