"""The agent's parts, joined."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent import serve
from agent.direct.off import Off
from agent.registry import Registry
from control.kit.clock import SystemClock
from tests.unit.agent.agent_example import example


def test_a_kernel_without_the_direct_path_has_it_off(tmp_path: Path) -> None:
    class OldKernel:
        direct = None
        direct_obstacle = "the kernel has no BPF ring buffer (5.8)"

    old: Any = OldKernel()
    config = example(tmp_path).config
    found = serve._direct_path(config, old, Registry(tmp_path / "state"), SystemClock())
    assert isinstance(found, Off)
    assert found.status() == {"on": False, "reason": OldKernel.direct_obstacle}
