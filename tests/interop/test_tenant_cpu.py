"""CPU time by tenant of a real worker under a mixed load: all of it, each tenant's in its place."""

from __future__ import annotations

import time

import pytest

from tests.support.engine.battery import battery

pytestmark = pytest.mark.alone

MIX = ("stream", "requests", "tunnels", "plaintext", "outbound")
LOAD_S = 1.0
PEER = "spiffe://cluster.local/ns/demo/sa/neighbour"


def test_the_tenants_together_have_the_workers_cpu_time_and_each_its_part() -> None:
    with battery(kinds=MIX) as made:
        cpu_s = made.worker.cpu_s
        before = made.worker.tenants()
        time.sleep(LOAD_S)
        after = made.worker.tenants()
        cpu_ms = 1000 * (made.worker.cpu_s - cpu_s)
    spent = {name: ms - before.get(name, 0) for name, ms in after.items()}
    assert 0.8 * cpu_ms <= sum(spent.values()) <= 1.1 * cpu_ms, (cpu_ms, spent)
    for name in (PEER, "127.0.0.1", "demo/web"):
        assert spent[name] >= 0.1 * cpu_ms, (cpu_ms, spent)
