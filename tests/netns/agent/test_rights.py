"""Each capability of the agent and of the ztunnel, by taking it away.

The parts run as in their pods: uid 0 with the capabilities of the chart and no others.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import yaml

from agent.datapath import cgroups
from control.wire import node_pb2
from tests.support.kernel.agent_bed import Bed, Process, eventually
from tests.support.peers.pod_intents import pod

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

ROOT = Path(__file__).parents[3]
PRIMARY = '{"cniVersion": "1.1.0", "name": "bed", "plugins": [{"type": "bridge"}]}'
OTHER_USER = 65533  # whose folders are not root's, as those of Kubespray's CNI


def of_the_chart(part: str) -> list[str]:
    """Capabilities of a container on the nodes, in the rendered manifests."""
    objects = yaml.safe_load_all((ROOT / "daemonset/manifests/base/tulle.yaml").read_text())
    pods = [each["spec"]["template"]["spec"] for each in objects if each["kind"] == "DaemonSet"]
    containers = [
        each for pod in pods for each in pod["containers"] + pod.get("initContainers", [])
    ]
    (found,) = (e["securityContext"]["capabilities"] for e in containers if e["name"] == part)
    assert found["drop"] == ["ALL"]
    return list(found["add"])


def confined(capabilities: Sequence[str], *command: str) -> list[str]:
    kept = "".join(f",+{each.lower()}" for each in capabilities)
    return ["setpriv", f"--bounding-set=-all{kept}", "--inh-caps=-all", *command]


@pytest.fixture(scope="module", autouse=True)
def checkout() -> None:
    """Without DAC_OVERRIDE root reads as others do: a private home's checkout is closed to it."""
    reads = confined([], sys.executable, "-c", "import agent.main")
    if subprocess.run(reads, cwd=ROOT, capture_output=True).returncode:
        pytest.xfail("the checkout is not root's own, and closed to others")


def _remove(root: Path) -> None:
    """With what the agent made in it for ztunnels, which have ended."""
    for folder in sorted(root.rglob("*/"), reverse=True):
        cgroups.remove(folder)
    cgroups.remove(root)


class Node(Bed):
    """A bed whose CNI folders are another user's, with an agent of few capabilities."""

    async def confined_agent(self, capabilities: Sequence[str], *more: str) -> Process:
        for name, file in (("conf", "10-bed.conflist"), ("bin", "bridge")):
            (self.folder / name).mkdir()
            (self.folder / name / file).write_text(PRIMARY)
            os.chown(self.folder / name, OTHER_USER, OTHER_USER)
        (self.folder / "tulle-cni").write_bytes(b"\x7fELF")
        command = self.agent_command(
            *more, "--cni",
            f"--cni-conf-dir={self.folder}/conf", f"--cni-bin-dir={self.folder}/bin",
            f"--cni-program={self.folder}/tulle-cni", f"--cni-state-dir={self.folder}/state",
        )  # fmt: skip
        return await self.start(*confined(capabilities, *command))

    def own_cgroup_root(self) -> Path:
        """With the mode of the host's, which may have folders of other runs already: in those a
        ztunnel's can be made without a right."""
        root = cgroups.create(cgroups.find_root() / f"tk-{os.getpid()}-rights")
        self._stack.callback(_remove, root)
        root.chmod(0o555)
        return root

    @property
    def log(self) -> str:
        return (self.folder / "log.txt").read_text()

    def has_configuration(self) -> bool:
        return (self.folder / "conf/00-tulle.conflist").exists()

    async def enrol(self) -> tuple[int, object]:
        """Register a pod whose namespace is found through another process' root."""
        await self.ztunnel()
        through = f"/proc/{self.pod_app.pid}/root/run/netns/{self.pod_netns}"
        return await self.register("u1", netns=through, timeout_s=0.1)

    async def becomes(self, what: str) -> None:
        """Wait until the pod has this state, or this reason for another."""
        found: dict[str, object] = {}

        async def reached() -> bool:
            found.update(await self.pod("u1"))
            return what in (found.get("state"), found.get("reason"))

        await eventually(reached, found)


@asynccontextmanager
async def node_of(folder: Path) -> AsyncIterator[Node]:
    async with Node(folder) as node:
        await node.serve_control()
        node.control.namespaces["shop"] = node_pb2.Namespace(name="shop", enrols=True)
        await node.control.put(pod("u1", node.node, enrolled=True))
        yield node


def test_the_agents_capabilities_are_enough(tmp_path: Path) -> None:
    async def run() -> None:
        async with node_of(tmp_path) as node:
            await node.confined_agent(of_the_chart("agent"))
            await eventually(node.answers)
            await node.enrol()
            await node.becomes("captured")
            assert "tunnel" in node.out()
            await eventually(node.has_configuration)

    asyncio.run(run())


# The pod's reason. No cgroup can be made for the ztunnel below the root's, whose mode is 0555.
AGENT = {"NET_ADMIN": "pod_refused", "DAC_OVERRIDE": "no_ztunnel"}


@pytest.mark.parametrize("without", AGENT)
def test_without_it_no_pod_is_captured(tmp_path: Path, without: str) -> None:
    async def run() -> None:
        async with node_of(tmp_path) as node:
            few = [each for each in of_the_chart("agent") if each != without]
            await node.confined_agent(few, f"--cgroup-root={node.own_cgroup_root()}")
            await eventually(node.answers)
            await node.enrol()
            await node.becomes(AGENT[without])
            if without == "DAC_OVERRIDE":
                await eventually(
                    lambda: re.search(r"ztunnel\.gone .*ermission", node.log) is not None
                )
                assert not node.has_configuration()
            assert node.out() == "app"

    asyncio.run(run())


def test_without_sys_ptrace_no_namespace_is_found_through_a_process(tmp_path: Path) -> None:
    async def run() -> None:
        async with node_of(tmp_path) as node:
            await node.confined_agent([e for e in of_the_chart("agent") if e != "SYS_PTRACE"])
            await eventually(node.answers)
            status, answer = await node.enrol()
            assert (status, "Permission denied" in str(answer)) == (400, True)

    asyncio.run(run())


def test_without_sys_admin_the_agent_says_so_and_ends(tmp_path: Path) -> None:
    async def run() -> None:
        async with node_of(tmp_path) as node:
            few = [each for each in of_the_chart("agent") if each != "SYS_ADMIN"]
            agent = await node.confined_agent(few)
            assert await agent.ended() == 1
            assert re.search(r"agent\.failed .*EPERM", node.log)

    asyncio.run(run())


def test_every_capability_of_the_agent_is_tried() -> None:
    assert {*AGENT, "SYS_ADMIN", "SYS_PTRACE"} == set(of_the_chart("agent"))


# As the ztunnel makes its listeners in a pod: it enters the namespace for a moment.
_LISTEN = """
import os, sys
from ztunnel.supervisor.bind import open_listeners
found = open_listeners(os.open(sys.argv[1], os.O_RDONLY), 1, fixed_ports=False)
print(len(found), "group")
"""


@pytest.mark.parametrize(
    ("capabilities", "said"),
    [(of_the_chart("ztunnel"), "1 group"), ([], "Operation not permitted")],
    ids=["with", "without"],
)
def test_the_ztunnel_enters_pods_with_its_one_capability(
    tmp_path: Path, capabilities: list[str], said: str
) -> None:
    async def run() -> None:
        async with Bed(tmp_path) as bed:
            path = f"/run/netns/{bed.pod_netns}"
            command = confined(capabilities, sys.executable, "-c", _LISTEN, path)
            done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True)
            assert said in done.stdout + done.stderr

    asyncio.run(run())


# A node in small: its first process, whose mount namespace has no bpffs, and a container beside it.
_NODE = """
umount -l /sys/fs/bpf 2>/dev/null || true
unshare --mount "$@"
stat --file-system --format %t /sys/fs/bpf
"""
BPF_FS = "cafe4a11"  # the type of that file system
BPFFS = {
    "": BPF_FS,
    "SYS_ADMIN": "enter the node's mount namespace: Operation not permitted",
    "SYS_CHROOT": "enter the node's mount namespace: Operation not permitted",
    "SYS_PTRACE": "/proc/1/ns/mnt: Permission denied",
}


@pytest.mark.parametrize("without", BPFFS)
def test_the_init_container_mounts_bpffs_with_three_and_not_with_two(without: str) -> None:
    assert {*BPFFS} - {""} == set(of_the_chart("bpffs"))
    few = [each for each in of_the_chart("bpffs") if each != without]
    command = confined(few, "python3", "-ISB", str(ROOT / "daemonset/image/tulle-bpffs"))
    node = ["unshare", "--mount", "--pid", "--fork", "--mount-proc", "sh", "-c", _NODE, "sh"]
    done = subprocess.run([*node, *command], capture_output=True, text=True, timeout=30)
    assert BPFFS[without] in done.stdout + done.stderr
    assert (BPF_FS in done.stdout) == (not without)
