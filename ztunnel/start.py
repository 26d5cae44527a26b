"""The start of a ztunnel's processes: the workers are copies of what they and the supervisor share.

Loading modules is most of a start, in which no pod of a restarted ztunnel is served. Two thirds of
a worker's are the supervisor's too: they are loaded first, once, and pages that nobody writes to
stay shared.
"""

from __future__ import annotations

import importlib
import logging
import signal
from collections.abc import Sequence
from typing import Final

from control.kit.clock import SystemClock
from control.kit.descriptors import raise_limit
from control.kit.log import event
from control.kit.memory import spare_collector, uncollected
from ztunnel.config import ZtunnelConfig
from ztunnel.supervisor.copies import Copy, fork
from ztunnel.supervisor.host import join_cgroup

log = logging.getLogger("ztunnel")

DNS_PORT = 15053
DNS_HINT = "pods resolve no name: set AMBIENT_DNS_CAPTURE=false for istio-cni"
# With what these import, all that both need. Nothing of it may start a thread.
SHARED: Final = (
    "control.wire.direct_flows",
    "control.wire.x509",
    "cryptography.hazmat.primitives.serialization",
    "ztunnel.ipc",
    "ztunnel.mesh.plaintext",
    "ztunnel.mesh.state",
    "ztunnel.refusals",
    "ztunnel.tenants.figures",
    "ztunnel.tenants.portions",
)


def run(config: ZtunnelConfig) -> None:
    """Be a ztunnel until it is told to end. ConfigError: the cgroup cannot be joined."""
    raise_limit()  # a pod takes one and three for each worker, a connection two
    if config.cgroup is not None:
        join_cgroup(config.cgroup)
    if config.dns_capture:
        event(log, logging.WARNING, "dns.not_served", port=DNS_PORT, hint=DNS_HINT)
    with uncollected():  # and what is frozen is not written to, so it stays shared
        for name in SHARED:
            importlib.import_module(name)
    _supervise(config, [fork(_work) for _ in range(config.workers)])
    event(log, logging.INFO, "process.ended")


def _work(descriptor: int) -> int:
    """A worker's life, with what it alone needs."""
    with uncollected():
        from ztunnel.worker.process import work

    return work(descriptor)


def _supervise(config: ZtunnelConfig, early: Sequence[Copy]) -> None:
    """The supervisor's, which loads the rest while the workers do."""
    with uncollected():
        import asyncio

        from ztunnel.supervisor.supervisor import Supervisor

    async def serve() -> None:
        spare_collector()
        supervisor = Supervisor(config, SystemClock(), early=early)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, supervisor.quit)
        loop.add_signal_handler(signal.SIGINT, supervisor.interrupt)
        await supervisor.run()

    asyncio.run(serve())
