"""An agent whose captures are damaged from outside: found, repaired, counted and shown."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from agent import config
from agent.datapath import folder
from agent.datapath.programs import ROOT_HOOKS
from tests.support.kernel.agent_bed import bed_with_pod, eventually

pytestmark = [
    pytest.mark.timeout(60),
    pytest.mark.skipif(os.geteuid() != 0 and not os.environ.get("CI"), reason="needs root"),
]

OUT4, IN4 = "tunnel outbound 10.87.0.2:8080", "tunnel plaintext 10.87.0.1:8080"


def test_a_capture_that_lost_its_programs_is_whole_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with bed_with_pod(tmp_path, "p1") as (bed, _, _):
            (pins,) = folder.versions(config.pin_root(config.DEFAULT_BPFFS, bed.node))
            pins.remove()  # everything: hooks, links, listeners, the exemption
            # The kernel drops a link that nobody holds some time later.
            await eventually(lambda: (bed.out(), bed.into()) == ("app", "app"))

            status, compared = await bed.ask("POST", "/compare")
            assert status == 200
            assert compared["differences"]["hook_lost"] == len(ROOT_HOOKS)
            assert "p1: pod_link_lost (link)" in compared["found"]
            assert compared["differences"]["exemption_lost"] == 1

            async def is_whole() -> bool:
                return (bed.out(), bed.into()) == (OUT4, IN4)

            await eventually(is_whole)
            _, compared = await bed.ask("POST", "/compare")
            assert compared["standing"] == []
            assert compared["error"] == ""
            assert (await bed.pod("p1"))["state"] == "captured"
            assert 'kernel_differences_total{kind="pod_link_lost"} 1.0' in await bed.metrics()
            _, checks = await bed.ask("GET", "/check")
            (check,) = [each for each in checks if each["code"] == "TUL1004"]
            assert check["result"] == "warning"
            assert "repaired at" in check["error"]

    asyncio.run(scenario())
