"""Pods that run already, found through a container runtime: enrolled in place, released with it."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import registry
from agent.datapath import cgroups
from agent.datapath.host_root import is_namespace, visible_namespace
from tests.support.kernel.agent_bed import Bed, Process, eventually
from tests.support.kube.cri import FakeRuntime, FakeSandbox
from tests.support.peers.pod_intents import pod

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

OUT4, IN4 = "tunnel outbound 10.87.0.2:8080", "tunnel plaintext 10.87.0.1:8080"
UID = "95c8fcf2-e103-42ca-8599-4f2e296b5be3"


def sandbox(bed: Bed, **changes: Any) -> FakeSandbox:
    made = FakeSandbox(
        uid=UID,
        name=UID,  # as the intent has it
        netns=f"/run/netns/{bed.pod_netns}",
        ips=("10.87.0.1", "fd87::1"),
    )
    return replace(made, **changes)


def kubernetes(socket: Path) -> tuple[str, ...]:
    return "--kubernetes", "--cri-socket", str(socket)


def test_a_running_pod_is_enrolled_in_place_and_its_sandbox_replaced(tmp_path: Path) -> None:
    runtime = FakeRuntime()

    async def scenario() -> None:
        async with Bed(tmp_path) as bed, runtime.serving(tmp_path / "cri"):
            await bed.serve_control()
            old = runtime.put(sandbox(bed))
            runtime.put(FakeSandbox(uid="host", name="proxy", host_network=True))
            await bed.agent(*kubernetes(tmp_path / "cri"))
            await bed.ztunnel()
            await bed.until(UID, "pending")
            assert (bed.out(), bed.into()) == ("app", "app")
            await bed.control.put(pod(UID, bed.node, enrolled=True))
            captured = await bed.until(UID, "captured")
            assert captured["addresses"] == ["10.87.0.1", "fd87::1"]
            assert (bed.out(), bed.into()) == (OUT4, IN4)

            runtime.fails = True  # a restart of the runtime changes nothing
            runtime.cut()

            async def is_away() -> bool:
                return not (await bed.ask("GET", "/status"))[1]["runtime"]["connected"]

            await eventually(is_away)
            assert (bed.out(), bed.into()) == (OUT4, IN4)

            await bed.replace_pod_namespace()
            runtime.fails = False
            runtime.stop(old)
            # By its process: in our mount namespace there may be no such name.
            new = runtime.run(sandbox(bed, netns="/run/netns/absent", pid=bed.pod_app.pid))

            async def is_back() -> bool:
                return bed.out() == OUT4 and bed.into() == IN4

            await eventually(is_back)
            status, answer = await bed.ask("DELETE", f"/pods/{UID}?container_id={old.id}")
            assert (status, answer["kept"]) == (200, "other_container")
            assert (bed.out(), bed.into()) == (OUT4, IN4)

            await bed.pod_app.end(9)
            runtime.stop(new)

            async def is_over() -> bool:
                return not (await bed.pod(UID)).get("netns")

            await eventually(is_over)

    asyncio.run(scenario())


def test_a_job_that_is_done_leaves_the_mesh_before_its_namespace(tmp_path: Path) -> None:
    runtime = FakeRuntime()

    async def scenario() -> None:
        async with Bed(tmp_path) as bed, runtime.serving(tmp_path / "cri"):
            await bed.serve_control()
            job = runtime.put(sandbox(bed))
            await bed.control.put(pod(UID, bed.node, enrolled=True))
            await bed.agent(*kubernetes(tmp_path / "cri"))
            await bed.ztunnel()
            await bed.until(UID, "captured")
            runtime.sandboxes[job.id] = replace(job, containers=("CONTAINER_EXITED",))
            await bed.control.remove(UID)

            async def is_over() -> bool:
                return not await bed.pod(UID)

            await eventually(is_over)
            assert bed.out() == "app"

    asyncio.run(scenario())


_HOST = """
mount -t tmpfs host {folder} && mkdir -p {folder}/run && touch {folder}/run/ns &&
mount --bind /proc/{pid}/ns/net {folder}/run/ns && ln -s {folder}/run {folder}/link &&
echo ready && exec cat
"""


def test_a_namespace_is_opened_where_only_the_hosts_first_process_sees_it(tmp_path: Path) -> None:
    """As in a container without the host's /run/netns; a link means the host's files."""
    folder = tmp_path / "host"
    folder.mkdir()

    async def scenario() -> None:
        async with Bed(tmp_path) as bed:
            script = _HOST.format(folder=folder, pid=bed.pod_app.pid)
            host = await bed.start("unshare", "-m", "sh", "-c", script)
            assert await host.line() == b"ready\n"
            path, root = f"{folder}/link/ns", f"/proc/{host.pid}/root"
            assert not is_namespace(path)
            found = visible_namespace(path, root)
            assert found == f"{root}{folder}/run/ns"
            with registry.opened(found) as handle:
                assert os.stat(f"/proc/{bed.pod_app.pid}/ns/net").st_ino == os.fstat(handle).st_ino

    asyncio.run(scenario())


@contextmanager
def containers(*paths: str) -> Iterator[list[Path]]:
    """Cgroups, below one of our own."""
    top = cgroups.create(cgroups.find_root() / f"tk-{os.getpid()}-kubepods")
    made = [top / path for path in paths]
    try:
        for each in made:
            each.mkdir(parents=True)
        yield made
    finally:
        for folder, _, _ in os.walk(top, topdown=False):
            cgroups.remove(Path(folder))


def test_in_containers_the_agent_finds_the_ztunnels_cgroup_and_leaves_it_there(
    tmp_path: Path,
) -> None:
    """Both read `/..` of each other's, and a probe runs beside the ztunnel."""
    runtime = FakeRuntime()

    async def scenario(own: Path, theirs: Path) -> None:
        async with Bed(tmp_path) as bed, runtime.serving(tmp_path / "cri"):
            await bed.serve_control()
            runtime.put(sandbox(bed))
            await bed.control.put(pod(UID, bed.node, enrolled=True))
            agent = bed.agent_command(*kubernetes(tmp_path / "cri"))
            await contained(bed, own, "exec unshare -C", *agent)
            await eventually(bed.answers)
            probe = await contained(bed, theirs, "exec", "cat")
            client = [sys.executable, "-m", "tests.support.peers.zds_client"]
            ztunnel = await contained(bed, theirs, "exec", *client, "--socket", str(bed.zds))
            await bed.until(UID, "captured")
            assert (bed.out(), bed.into()) == (OUT4, IN4)
            assert cgroups.members(theirs) == {ztunnel.pid, probe.pid}

    uid = "11111111-2222-3333-4444-555555555555"
    with containers("agent", f"pod{uid}/ztunnel") as (own, theirs):
        asyncio.run(scenario(own, theirs))


async def contained(bed: Bed, cgroup: Path, how: str, *command: str) -> Process:
    script = f"echo $$ > {cgroup}/cgroup.procs; {how} {shlex.join(command)}"
    return await bed.start("sh", "-c", script)
