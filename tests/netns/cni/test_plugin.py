"""The CNI plugin, a real agent and real network namespaces: pods start captured, or wait."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from control.wire import node_pb2
from tests.support.kernel.agent_bed import Bed, eventually
from tests.support.peers.pod_intents import pod
from tests.support.processes.cni import RECORDED, Plugin, Printed, compile_plugin

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

PATIENCE_MS, HASTY_MS = 8000, 1200  # for what comes, and for what does not
PRIMARY = '{"cniVersion": "1.1.0", "name": "bed", "plugins": [{"type": "bridge"}]}'
CAUGHT = "tunnel"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("plugin") / "tulle-cni"
    return compile_plugin(to, "-static", f"-DDEADLINE_MS={PATIENCE_MS}")


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    to = tmp_path_factory.mktemp("hasty") / "tulle-cni"
    return compile_plugin(to, f"-DDEADLINE_MS={HASTY_MS}")


class Node:
    """A bed whose agent keeps the plugin, called as the runtime would."""

    def __init__(self, bed: Bed, program: Path) -> None:
        self.bed = bed
        self.conf, self.bin = bed.folder / "conf", bed.folder / "bin"
        self.program = program

    def options(self) -> list[str]:
        """A host of its own: this one's runtime, and its configuration, are nobody's business."""
        return [
            "--cni", f"--cni-host-prefix={self.bed.folder}",
            "--cni-conf-dir=/conf", "--cni-bin-dir=/bin", "--cri-socket=/absent",
            f"--cni-program={self.program}", f"--cni-state-dir={self.bed.folder / 'state'}",
        ]  # fmt: skip

    async def start(self) -> Any:
        return await self.bed.agent(*self.options())

    def entry(self) -> dict[str, Any]:
        """Our plugin in the configuration that the runtime takes, which has to be ours."""
        first = min(os.listdir(self.conf))
        plugins = json.loads((self.conf / first).read_text())["plugins"]
        assert plugins[0] == {"type": "bridge"}
        return dict(plugins[-1])

    async def call(
        self, command: str, uid: str, program: Path | None = None, **changes: str
    ) -> Printed:
        recorded = json.loads((RECORDED / "ADD.json").read_text())
        result = recorded["stdin"]["prevResult"]
        result["ips"] = [
            {"address": "10.87.0.1/24", "interface": 2},
            {"address": "fd87::1/64", "interface": 2},
        ]
        stdin = {"cniVersion": "1.1.0", "name": "bed", "prevResult": result, **self.entry()}
        names = {"shop": self.bed.pod_netns, "plain": self.bed.peer_netns, "new": "absent"}
        fields = {"container": f"{uid}-1", "namespace": "shop", **changes}
        environment = {
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": fields["container"],
            "CNI_NETNS": f"/run/netns/{names[fields['namespace']]}" if command == "ADD" else "",
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": f"K8S_POD_NAMESPACE={fields['namespace']};K8S_POD_NAME={uid};"
            f"K8S_POD_UID={uid}",
        }
        plugin = Plugin(program or self.bin / "tulle-cni", self.bed.folder)
        text = json.dumps(stdin).encode()
        return await asyncio.to_thread(plugin.call, text, environment)


@asynccontextmanager
async def node_of(folder: Path, program: Path) -> AsyncIterator[Node]:
    async with Bed(folder) as bed:
        node = Node(bed, program)
        node.conf.mkdir()
        node.bin.mkdir()
        (node.bin / "bridge").touch()
        (node.conf / "10-bed.conflist").write_text(PRIMARY)
        await bed.serve_control()
        for name, enrols in (("shop", True), ("plain", False)):
            bed.control.namespaces[name] = node_pb2.Namespace(name=name, enrols=enrols)
        await bed.control.put(
            pod("u1", bed.node, enrolled=True),
            pod("u2", bed.node, enrolled=False, namespace="plain"),
        )
        yield node


async def ready(node: Node) -> None:
    await eventually(lambda: node.bin.joinpath("tulle-cni").exists() and is_kept(node))


def listed(path: str) -> list[str]:
    return Path(path).read_text().splitlines()[1:-1]


def is_kept(node: Node) -> bool:
    return min(os.listdir(node.conf)) == "00-tulle.conflist"


def test_a_pod_starts_when_it_is_captured_and_stays_so_through_late_deletions(
    tmp_path: Path, program: Path, hasty: Path
) -> None:
    async def run() -> None:
        async with node_of(tmp_path, program) as node:
            await node.start()
            await ready(node)
            assert (await node.call("STATUS", "u1")).code == 0
            alone = await node.call("ADD", "u1", hasty)
            assert (alone.code, alone.json()["code"]) == (1, 11)
            assert alone.sentence.endswith("no ztunnel runs on this node")
            assert (await node.call("DEL", "u1")).code == 0

            async with asyncio.TaskGroup() as tasks:
                adding = tasks.create_task(node.call("ADD", "u1", container="u1-2"))
                await node.bed.until("u1", "pending")
                await node.bed.ztunnel()
            added = adding.result()
            assert added.code == 0, added
            assert [each["address"] for each in added.json()["ips"]] == [
                "10.87.0.1/24",
                "fd87::1/64",
            ]
            assert (await node.bed.pod("u1"))["state"] == "captured"
            assert CAUGHT in node.bed.out(), "from its first connection on"
            assert (await node.call("CHECK", "u1")).code == 0

            for _ in range(2):  # about the sandbox before, minutes late
                assert (await node.call("DEL", "u1", container="u1-1")).code == 0
            assert CAUGHT in node.bed.out()
            assert (await node.call("DEL", "u1", container="u1-2")).code == 0
            assert (await node.bed.pod("u1"))["reason"] == "not_registered"

    asyncio.run(run())


def test_without_the_agent_pods_outside_start_others_wait_and_all_can_stop(
    tmp_path: Path, program: Path, hasty: Path
) -> None:
    async def run() -> None:
        async with node_of(tmp_path, program) as node:
            agent = await node.start()
            await ready(node)
            await node.bed.ztunnel()
            assert (await node.call("ADD", "u2", namespace="plain")).code == 0
            await agent.end(signal.SIGTERM)
            assert is_kept(node), "a stop may be a reboot"

            started = time.monotonic()
            assert (await node.call("ADD", "u3", namespace="plain")).code == 0
            assert time.monotonic() - started < PATIENCE_MS / 2000
            assert (await node.call("DEL", "u2")).code == 0
            assert (await node.call("STATUS", "u2")).code == 0
            async with asyncio.TaskGroup() as tasks:
                of_the_mesh = tasks.create_task(node.call("ADD", "u1", hasty))
                unknown = tasks.create_task(node.call("ADD", "u4", hasty, namespace="new"))
            refused = unknown.result()
            assert (refused.code, "has not heard" in refused.sentence) == (1, True)
            refused = of_the_mesh.result()
            assert (refused.code, "not running" in refused.sentence) == (1, True)

            async with asyncio.TaskGroup() as tasks:
                waiting = tasks.create_task(node.call("ADD", "u1", container="u1-2"))
                await node.start()
                await node.bed.ztunnel()
            assert waiting.result().code == 0, "an upgrade is waited for"
            assert CAUGHT in node.bed.out()

    asyncio.run(run())


def test_the_files_follow_the_primary_and_go_when_told(tmp_path: Path, program: Path) -> None:
    async def run() -> None:
        async with node_of(tmp_path, program) as node:
            await node.start()
            await ready(node)
            entry = node.entry()
            assert entry["type"] == "tulle-cni"
            assert listed(entry["namespaces"]) == ["-plain", "+shop"]
            (node.conf / "00-multus.conf").write_text('{"cniVersion": "1.0.0", "nam')
            (node.conf / "00-multus.conf").write_text(
                '{"cniVersion": "1.0.0", "name": "m", "type": "bridge"}'
            )
            await eventually(lambda: "00-00-tulle.conflist" in os.listdir(node.conf))
            assert "00-tulle.conflist" not in os.listdir(node.conf)

            command = node.bed.agent_command(*node.options(), "cni", "uninstall")
            done = await node.bed.start(*command)
            assert await done.ended() == 0
            assert sorted(os.listdir(node.conf)) == ["00-multus.conf", "10-bed.conflist"]
            assert os.listdir(node.bin) == ["bridge"]
            (node.conf / "10-bed.conflist").write_text(PRIMARY)
            _, status = await node.bed.ask("GET", "/status")
            assert status["cni"]["uninstalled"] is True
            assert os.listdir(node.bin) == ["bridge"]

    asyncio.run(run())
