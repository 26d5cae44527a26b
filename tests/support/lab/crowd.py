"""Many pods on one node of a lab, with nothing in them, and what the node's processes hold.

A pod here is a namespace, a veth and an object for the control plane: a tenth of the time that the
lab takes for one. Addresses are above those that the lab gives.
"""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import config, fetch
from agent.lab import netns, process
from agent.lab.lab import Lab
from agent.lab.plan import NODE_GATEWAY_V6, AddressPair
from control.kit.files import write_atomic
from tests.bench import manifests

ACCOUNTS = 100
IP_S = 10.0
THREADS = 16


@dataclass(frozen=True, slots=True)
class CrowdPod:
    """A pod's namespace on the node."""

    number: int
    uid: str
    namespace: str
    name: str
    node: str
    netns: str
    link: str
    address: AddressPair

    def manifest(self) -> dict[str, Any]:
        value = manifests.pod(self.namespace, self.name)
        value["metadata"]["uid"] = self.uid
        account = f"account-{self.number % ACCOUNTS}"
        value["spec"] |= {"nodeName": self.node, "serviceAccountName": account}
        value["status"] = {
            "phase": "Running",
            "podIP": self.address.v4,
            "podIPs": [{"ip": each} for each in self.address.both],
            "conditions": [{"type": "Ready", "status": "True"}],
        }
        return value


class Crowd:
    """Pods of one namespace on the first node of a lab."""

    def __init__(self, lab: Lab, node: str, namespace: str) -> None:
        self.lab = lab
        self.state = lab.store.load()
        self.node = self.state.node(node)
        self.namespace = namespace
        self._built: dict[str, CrowdPod] = {}

    def pod(self, prefix: str, number: int, place: int) -> CrowdPod:
        """`place` decides the addresses: those of a pod that is gone may be given again."""
        high, low = divmod(place, 250)
        address = AddressPair(f"10.71.{100 + high}.{low + 1}", f"fd71:1::{0x1000 + place:x}")
        uid = f"11111111-0000-4000-8{ord(prefix):03x}-{number:012d}"
        name = f"{prefix}{number}"
        where = f"tl-{self.state.lab}-{name}"
        node = self.node.name
        return CrowdPod(number, uid, self.namespace, name, node, where, f"p{name}", address)

    def build(self, pod: CrowdPod) -> None:
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

    def remove(self, pod: CrowdPod) -> None:
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
        name = f"{self.namespace}-namespace.yaml"
        self.write(name, [manifests.namespace(self.namespace, enrolled=enrolled)])

    def register(self, pod: CrowdPod, timeout_s: float = 30.0) -> tuple[int, float]:
        """POST as the CNI plugin does it: the answer's status, and the time until it came."""
        body = {
            "namespace": pod.namespace,
            "name": pod.name,
            "uid": pod.uid,
            "netns": f"/run/netns/{pod.netns}",
            "timeout_s": timeout_s,
        }
        begun_s = time.monotonic()
        answer = fetch.request(self.agent, "POST", "/pods", body, timeout_s=timeout_s + 10)
        return answer.status, time.monotonic() - begun_s

    def delete(self, pod: CrowdPod) -> int:
        return fetch.request(self.agent, "DELETE", f"/pods/{pod.uid}", timeout_s=30.0).status

    def come_and_go(self, pods: list[CrowdPod]) -> list[str]:
        """These pods start and end once; what went wrong."""
        self.write(f"{self.namespace}-passing.yaml", [pod.manifest() for pod in pods])
        each_of(pods, self.build, 4)
        came = each_of(pods, self.register)
        left = each_of(pods, self.delete)
        each_of(pods, self.remove, 4)
        bad = [f"{pod.name} comes: {status}" for pod, (status, _) in zip(pods, came, strict=True)]
        bad += [f"{pod.name} goes: {status}" for pod, status in zip(pods, left, strict=True)]
        return [each for each in bad if not each.endswith(" 200")]

    @property
    def agent(self) -> Path:
        return self.lab.run_dir / self.node.name / "agent.sock"

    def status(self) -> dict[str, Any]:
        answer = fetch.request(self.agent, "GET", "/status")
        fetch.checked(answer, "/status")
        found = answer.json()
        assert isinstance(found, dict)
        return found

    # Held by the node

    def processes(self) -> dict[str, int]:
        """The node's processes, by a name for each."""
        known, node = self.lab.store.load().processes, self.node.name
        main = known[f"ztunnel-{node}"]
        cgroup = process.cgroup_of(main)
        text = "" if cgroup is None else (cgroup / "cgroup.procs").read_text()
        workers = [int(word) for word in text.split() if int(word) != main.pid]
        found = {"agent": known[f"agent-{node}"].pid, "supervisor": main.pid}
        return found | {f"worker {number}": pid for number, pid in enumerate(workers)}

    def held(self) -> dict[str, int]:
        """Descriptors of each process, pins, entries of tables: whatever keeps a link, a program or
        a map of the kernel alive."""
        found = {
            f"descriptors of {name}": len(os.listdir(f"/proc/{pid}/fd"))
            for name, pid in self.processes().items()
        }
        root = config.pin_root(config.DEFAULT_BPFFS, self.node.name)
        found["pins"] = sum(len(files) for _, _, files in os.walk(root))
        maps = self.status()["maps"]
        return found | {f"entries of {each['name']}": each["used"] for each in maps}


def _ip(where: str, *commands: str) -> None:
    text = "".join(f"{each}\n" for each in commands)
    subprocess.run(
        ["ip", "-n", where, "-batch", "-"], input=text, text=True, check=True, timeout=IP_S
    )


def each_of(
    pods: Iterable[CrowdPod], call: Callable[[CrowdPod], Any], threads: int = THREADS
) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(call, pods))
