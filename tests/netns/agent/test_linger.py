"""A pod that has left the mesh stays at its ztunnel for what is open, also past a restart."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from tests.support.kernel.agent_bed import bed_with_pod
from tests.support.peers.pod_intents import pod

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_agent_that_is_restarted_has_it_kept(tmp_path: Path, how: int) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, agent, ztunnel):
            await bed.control.put(pod("p1", bed.node, enrolled=False))
            await bed.control.reported(set())
            await bed.until("p1", "not_enrolled")
            await agent.end(how)
            ztunnel.lines.clear()
            await bed.agent()
            await ztunnel.said(snapshot_sent=True)
            assert {"kept": "p1"} in ztunnel.lines
            assert (await bed.ask("DELETE", "/pods/p1"))[0] == 200
            await ztunnel.said(deleted="p1")
            assert [line for line in ztunnel.lines if "deleted" in line] == [{"deleted": "p1"}]

    asyncio.run(scenario())
