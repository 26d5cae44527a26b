"""All that workers share with the supervisor is loaded before they are copied, and no more."""

from __future__ import annotations

import json
import subprocess
import sys

from ztunnel.start import SHARED

DEADLINE_S = 60.0


def loaded(*modules: str) -> set[str]:
    """Modules of a process that has imported these, and how many threads it has, as a name."""
    script = (
        "import importlib, json, sys, threading\n"
        "for name in sys.argv[1:]: importlib.import_module(name)\n"
        "print(json.dumps([*sys.modules, f'{threading.active_count()} threads']))"
    )
    command = [sys.executable, "-c", script, *modules]
    done = subprocess.run(command, capture_output=True, check=True, timeout=DEADLINE_S)
    return set(json.loads(done.stdout))


def test_a_copy_has_all_that_both_need_and_nothing_that_it_may_not_have() -> None:
    before = loaded("ztunnel.main", *SHARED)
    worker = loaded("ztunnel.worker.process")
    supervisor = loaded("ztunnel.main", "ztunnel.supervisor.supervisor")
    assert "1 threads" in before
    assert not before & {"asyncio", "grpc", "prometheus_client", "h11"}
    both = {each for each in worker & supervisor if each.startswith(("control.", "ztunnel."))}
    assert len(both) > 30
    assert sorted(both - before) == []
    assert set(SHARED) <= worker & supervisor


def test_the_metrics_page_is_loaded_later() -> None:
    supervisor = loaded("ztunnel.main", "ztunnel.supervisor.supervisor")
    assert not supervisor & {"prometheus_client", "ztunnel.supervisor.metrics_page"}
