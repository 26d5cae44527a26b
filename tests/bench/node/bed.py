"""One node with many pods: a lab of two nodes, and namespaces that are pods of the first one.

The pods run nothing. The bench opens their sockets itself, in their namespaces, towards a server on
the other node.
"""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import fetch
from agent.lab import netns
from agent.lab.lab import Lab, Options
from agent.lab.netns import NETNS_FOLDER, inside
from agent.lab.plan import NODE_GATEWAY_V6, AddressPair
from agent.lab.state import LabState
from control.kit.files import write_atomic
from tests.bench import manifests
from tests.bench.model import BenchError

RUN_DIR = Path("/run/tulle-bench-node")
LAB, NODE, FAR = "tb-many", "tb-m1", "tb-m2"
PODS, SERVERS = "many", "far"
ACCOUNTS = 100
PORT = 7000
CAPTURED_S = 60.0
CONNECT_S = 5.0
IP_S = 10.0
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


@dataclass(frozen=True, slots=True)
class Made:
    """A pod's namespace on the node."""

    number: int
    uid: str
    name: str
    netns: str
    link: str
    address: AddressPair

    @classmethod
    def of(cls, prefix: str, number: int, place: int) -> Made:
        """`place` decides the addresses: those of a pod that is gone may be given again."""
        high, low = divmod(place, 250)
        address = AddressPair(f"10.71.{100 + high}.{low + 1}", f"fd71:1::{0x1000 + place:x}")
        uid = f"11111111-0000-4000-8{ord(prefix):03x}-{number:012d}"
        name = f"{prefix}{number}"
        return cls(number, uid, name, f"tl-{LAB}-{name}", f"p{name}", address)

    def manifest(self) -> dict[str, Any]:
        value = manifests.pod(PODS, self.name)
        value["metadata"]["uid"] = self.uid
        account = f"account-{self.number % ACCOUNTS}"
        value["spec"] |= {"nodeName": NODE, "serviceAccountName": account}
        value["status"] = {
            "phase": "Running",
            "podIP": self.address.v4,
            "podIPs": [{"ip": each} for each in self.address.both],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        return value


class ManyPods:
    def __init__(self, lab: Lab, state: LabState) -> None:
        self.lab, self.state = lab, state
        self.node = state.node(NODE)
        self.server = state.pods[f"{SERVERS}/server"].address.v4, PORT
        self._built: dict[str, Made] = {}

    # -- pods ------------------------------------------------------------------------------------

    def build(self, pod: Made) -> None:
        """As the lab does it, in a tenth of its time."""
        node, address = self.node, pod.address
        netns.create(pod.netns)
        self._built[pod.uid] = pod
        _ip(
            node.netns,
            f"link add {pod.link} type veth peer name eth0 netns {pod.netns}",
            f"address add {NODE_GATEWAY_V6}/64 dev {pod.link} nodad",
            f"link set {pod.link} up",
            f"route add {address.v4}/32 dev {pod.link} scope link src {node.address.v4}",
            f"route add {address.v6}/128 dev {pod.link} src {node.address.v6}",
        )
        _ip(
            pod.netns,
            "link set lo up",
            f"address add {address.v4}/32 dev eth0",
            f"address add {address.v6}/128 dev eth0 nodad",
            "link set eth0 up",
            f"route add {node.address.v4}/32 dev eth0 scope link",
            f"route add default via {node.address.v4} dev eth0",
            f"route add ::/0 via {NODE_GATEWAY_V6} dev eth0",
        )

    def remove(self, pod: Made) -> None:
        _ip(self.node.netns, f"link del {pod.link}")
        netns.remove(pod.netns)
        self._built.pop(pod.uid, None)

    def remove_all(self) -> None:
        for pod in list(self._built.values()):
            self.remove(pod)

    def write(self, name: str, values: list[dict[str, Any]]) -> None:
        text = manifests.documents(values).encode()
        write_atomic(self.lab.manifests_folder / name, text, 0o600)

    def label(self, *, enrolled: bool) -> None:
        self.write("many-namespace.yaml", [manifests.namespace(PODS, enrolled=enrolled)])

    def register(self, pod: Made, timeout_s: float = 30.0) -> tuple[int, float]:
        """POST as the CNI plugin does it: the answer's status, and the time until it came."""
        body = {
            "namespace": PODS,
            "name": pod.name,
            "uid": pod.uid,
            "netns": f"/run/netns/{pod.netns}",
            "timeout_s": timeout_s,
        }
        begun_s = time.monotonic()
        answer = fetch.request(self.agent, "POST", "/pods", body, timeout_s=timeout_s + 10)
        return answer.status, time.monotonic() - begun_s

    def delete(self, pod: Made) -> int:
        return fetch.request(self.agent, "DELETE", f"/pods/{pod.uid}", timeout_s=30.0).status

    # -- the mesh --------------------------------------------------------------------------------

    @property
    def agent(self) -> Path:
        return self.lab.run_dir / NODE / "agent.sock"

    def status(self) -> dict[str, Any]:
        answer = fetch.request(self.agent, "GET", "/status")
        fetch.checked(answer, "/status")
        found = answer.json()
        assert isinstance(found, dict)
        return found

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

    def connect(self, pod: Made, timeout_s: float = CONNECT_S) -> socket.socket:
        with inside(pod.netns):
            made = socket.socket()
        made.settimeout(timeout_s)
        try:
            made.connect(self.server)
        except OSError:
            made.close()
            raise
        return made

    def answers(self, pod: Made, timeout_s: float = CONNECT_S) -> bool:
        """One connection, one byte there and back."""
        try:
            with self.connect(pod, timeout_s) as made:
                made.sendall(b"x")
                return made.recv(1) == b"x"
        except OSError:
            return False


def _ip(where: str, *commands: str) -> None:
    text = "".join(f"{each}\n" for each in commands)
    subprocess.run(
        ["ip", "-n", where, "-batch", "-"], input=text, text=True, check=True, timeout=IP_S
    )


def wait(condition: Callable[[], bool], what: str, timeout_s: float = CAPTURED_S) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end_s:
            raise BenchError(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(0.05)


def each_of(pods: list[Made], call: Callable[[Made], Any], threads: int = 16) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, pods))


@contextmanager
def many_pods(count: int, workers: int = 1) -> Iterator[tuple[ManyPods, list[Made]]]:
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
            bed = ManyPods(lab, lab.store.load())
            pods = [Made.of("m", number, number) for number in range(count)]
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
