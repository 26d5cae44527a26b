"""The end of a waypoint without a lost request: it is found no more, then left alone, then ended.

From the first moment on its readiness page says no, and Envoy asks its peers to leave: a tunnel is
told to take no new stream, a response closes its connection. New connections are still taken: who
has not heard of it yet comes all the same.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable

from control.kit.clock import Clock
from control.kit.log import event
from ztunnel.waypoint.envoy_admin import EnvoyAdmin, EnvoySilent

log = logging.getLogger("waypoint")

LOOK_S = 0.1
# A caller's node hears from the control plane that we are not ready, and dials others from then on.
LEAVE_S_MIN = 2.0
DRAIN = "/drain_listeners?graceful&skip_exit"
# Counted by each listener and, once more, by each worker; kept up at each change.
CONNECTIONS = "/stats?format=json&filter=^listener\\..*downstream_cx_active$"


async def drain(
    envoy: EnvoyAdmin,
    drain_s: float,
    clock: Clock,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Return when nothing is open any more, or when the time is over."""
    begun_s = clock.monotonic_s()
    event(log, logging.INFO, "drain.started", deadline_s=drain_s)
    try:
        await envoy.post(DRAIN)
        open_now = -1
        while (passed_s := clock.monotonic_s() - begun_s) < drain_s:
            await sleep(min(LOOK_S, drain_s - passed_s))
            open_now = await connections(envoy)
            if open_now == 0 and clock.monotonic_s() - begun_s >= LEAVE_S_MIN:
                break
    except EnvoySilent as exc:  # it is gone, and with it whatever was open
        event(log, logging.WARNING, "drain.failed", error=exc)
        return
    took_s = round(clock.monotonic_s() - begun_s, 1)
    event(log, logging.INFO, "drain.ended", seconds=took_s, left_open=max(open_now, 0))


async def connections(envoy: EnvoyAdmin) -> int:
    """Number of connections from peers that are open now."""
    answer = await envoy.get(CONNECTIONS)
    try:
        found = json.loads(answer.body)["stats"]
        return sum(int(each["value"]) for each in found if _is_peers(each["name"]))
    except (ValueError, KeyError, TypeError) as exc:
        raise EnvoySilent(f"no number of connections: {exc}") from exc


def _is_peers(name: str) -> bool:
    return not name.startswith("listener.admin.") and ".worker_" not in name
