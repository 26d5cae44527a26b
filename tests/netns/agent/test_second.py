"""A second agent for a node ends and says why; the first goes on undisturbed."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from tests.support.kernel.agent_bed import bed_with_pod


def test_a_second_agent_ends_and_the_first_keeps_its_sockets(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, _):
            sockets = {p: p.stat().st_ino for p in bed.run_folder.glob("*.sock")}
            assert len(sockets) == 3
            second = await bed.start(*bed.agent_command())
            assert await second.ended() == 2
            assert f"another tulle-agent, pid {agent.pid}," in (tmp_path / "log.txt").read_text()
            assert {p: p.stat().st_ino for p in bed.run_folder.glob("*.sock")} == sockets
            answer = await bed.register("p1")
            assert answer == (200, {"uid": "p1", "state": "captured"})
            await agent.end(signal.SIGKILL)
            await bed.agent()  # a killed one has left no lock
            assert (await bed.until("p1", "captured"))["reason"] in ("", "no_ztunnel")

    asyncio.run(scenario())


def test_an_agent_with_another_run_folder_leaves_the_pins_of_its_name_alone(tmp_path: Path) -> None:
    """Two labs on one host, or a lab beside a release that is tried in a root folder of its own."""

    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, _):
            elsewhere = ("--run-dir", str(tmp_path / "elsewhere"))
            second = await bed.start(*bed.agent_command(*elsewhere))
            assert await second.ended() == 2
            said = (
                f"another agent of node {bed.node}, with a run folder of its own, has /sys/fs/bpf"
            )
            assert said in (tmp_path / "log.txt").read_text()
            assert (await bed.until("p1", "captured"))["reason"] == ""
            await agent.end(signal.SIGKILL)
            await bed.agent()  # a killed one holds nothing
            assert (await bed.until("p1", "captured"))["reason"] in ("", "no_ztunnel")

    asyncio.run(scenario())
