"""A waypoint's process from start to end: first a certificate, then Envoy, at the end a drain.

    certificate service ── certificates ── sds ──┐ unix sockets in a
    control plane ────────────────────── relay ──┤ private folder    ── Envoy (our child)
    people, probes ───────────────────── pages ──┘

Nothing here stands in the way of traffic: while the control plane is away Envoy serves on with what
it has, and when Envoy is away callers are refused.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from control.kit.clock import Clock
from control.kit.log import event
from control.kit.page_refusals import refusals
from control.kit.socket_folder import private_folder
from control.kit.version import version
from control.wire.envoy_bootstrap import Bootstrap, bootstrap
from ztunnel.identity.certs import Certificates
from ztunnel.identity.renewal import is_valid
from ztunnel.identity.signer import CaClient, Signer
from ztunnel.waypoint import pages
from ztunnel.waypoint.config import WaypointConfig
from ztunnel.waypoint.drain import drain
from ztunnel.waypoint.envoy import EnvoyChild, command
from ztunnel.waypoint.envoy_admin import EnvoyAdmin, EnvoyAnswer, EnvoySilent
from ztunnel.waypoint.metrics import MetricsPage, Sample
from ztunnel.waypoint.relay import AdsRelay
from ztunnel.waypoint.sds import Sds
from ztunnel.waypoint.services import serving

log = logging.getLogger("waypoint")

# Nobody is served before the first certificate: its tries do not grow apart like those of renewals.
FIRST_AGAIN_S = 5.0
HOLDER = "waypoint"  # has the one identity


class WaypointProcess:
    def __init__(
        self, config: WaypointConfig, clock: Clock, folder: Path, signer: Signer | None = None
    ) -> None:
        """`folder`: private, for sockets."""
        self._config = config
        self._clock = clock
        self._folder = folder
        self._stop = asyncio.Event()
        self._stop_now = asyncio.Event()
        self._sds = Sds()
        self._certificates = Certificates(
            signer or CaClient(config), clock, self._sds, ttl_s=config.secret_ttl_s
        )
        self._certificates.hold(config.identity, HOLDER)
        self._relay = AdsRelay(config, self._certificates.reachable)
        self._admin = EnvoyAdmin(folder / "admin")
        self._envoy = EnvoyChild(self._command(), clock)
        self._page = MetricsPage(self._admin, self._samples, clock.monotonic_s)

    def quit(self) -> None:
        """Drain and end."""
        self._stop.set()

    def interrupt(self) -> None:
        """Somebody at a terminal: the first call drains, one during a drain ends at once."""
        if self._stop.is_set():
            self._stop_now.set()
        self._stop.set()

    async def run(self) -> None:
        """Serve until `quit()`, then drain."""
        config = self._config
        doors = pages.serve(self, config.admin_socket, config.metrics, config.readiness)
        serving_envoy = serving(self._folder, self._sds, self._relay)
        async with doors, serving_envoy, asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(self._certificates.run(), name="certificates")
            running = tasks.create_task(self._run_envoy(), name="envoy")
            started = {"gateway": config.gateway, "version": version()}
            event(log, logging.INFO, "waypoint.started", **started)
            await self._stop.wait()
            if self._envoy.is_up:
                await self._drain(tasks)
            await self._envoy.end()
            for each in (keeping, running):
                each.cancel()
        event(log, logging.INFO, "waypoint.ended")

    async def _run_envoy(self) -> None:
        """Run it from the first certificate on: before that it could serve nobody."""
        while not self._sds.first.is_set():
            try:
                async with asyncio.timeout(FIRST_AGAIN_S):
                    await self._sds.first.wait()
            except TimeoutError:
                self._certificates.need(self._config.identity, waiting=True)
        await self._envoy.run()

    async def _drain(self, tasks: asyncio.TaskGroup) -> None:
        draining = drain(self._admin, self._config.drain_s, self._clock)
        ending = tasks.create_task(draining, name="drain")
        hurry = tasks.create_task(self._stop_now.wait(), name="hurry")
        await asyncio.wait((ending, hurry), return_when=asyncio.FIRST_COMPLETED)
        for each in (ending, hurry):
            each.cancel()

    def _command(self) -> list[str]:
        config, folder = self._config, self._folder
        asked = Bootstrap(
            node_id=config.node_id,
            cluster=str(config.gateway),
            ads_socket=str(folder / "ads"),
            sds_socket=str(folder / "sds"),
            admin_socket=str(folder / "admin"),
        )
        return command(
            config.envoy,
            bootstrap(asked),
            concurrency=config.concurrency,
            drain_s=config.drain_s,
        )

    # Contents of the pages (pages.WaypointSubject)

    async def pending(self) -> list[str]:
        """Everything that keeps us from being ready."""
        issued = self._sds.issued
        missing = []
        if self._stop.is_set():
            missing.append("draining")
        if issued is None or not is_valid(issued, self._clock.now()):
            missing.append("certificate")
        try:
            # It is live once it has heard of its clusters and listeners, not before.
            answer = await self._admin.get("/ready")
            if answer.status != 200:
                missing.append(f"envoy {answer.body.decode('ascii', 'replace').strip().lower()}")
        except EnvoySilent:
            missing.append("envoy")
        return missing

    def status(self) -> dict[str, Any]:
        issued, way = self._sds.issued, self._relay.status
        return {
            "config": self._config.as_json(),
            "version": version(),
            "identity": str(self._config.identity),
            "certificate": None
            if issued is None
            else {"serial": f"{issued.serial:x}", "not_after": issued.not_after.isoformat()},
            "control": {"connected": bool(way.connected), "error": way.error},
            "envoy": {"up": self._envoy.is_up, "starts": self._envoy.starts},
        }

    async def metrics(self) -> tuple[dict[str, str], bytes]:
        return await self._page.get()

    async def ask_envoy(self, target: str, body_bytes_max: int) -> EnvoyAnswer:
        return await self._admin.get(target, body_bytes_max=body_bytes_max)

    def rotate(self) -> None:
        self._certificates.rotate()

    def _samples(self) -> Iterator[Sample]:
        name, way, envoy = "tulle_waypoint_", self._relay.status, self._envoy
        yield "istio_build", "This process", 1, {"component": "waypoint", "tag": version()}
        yield f"{name}envoy_up", "1 while Envoy runs", float(envoy.is_up), {}
        yield f"{name}envoy_starts_total", "Starts of Envoy", envoy.starts, {}
        dropped = "Lines of Envoy's own log that were left out, as it wrote too many"
        yield f"{name}envoy_lines_dropped_total", dropped, envoy.lines_dropped, {}
        yield f"{name}secrets_refused_total", "Secrets that Envoy refused", self._sds.refused, {}
        connected = "1 while Envoy has a stream to the control plane"
        yield f"{name}control_connected", connected, float(way.connected > 0), {}
        ended = "Ended streams to the control plane, by reason"
        for reason, count in way.terminations.items():
            yield "istio_xds_connection_terminations_total", ended, count, {"reason": reason}
        yield "istio_xds_message_total", "Messages from the control plane", way.messages, {}
        yield "istio_xds_message_bytes_total", "Bytes of them", way.message_bytes, {}
        if self._sds.issued is not None:
            ends = self._sds.issued.not_after.timestamp()
            yield f"{name}certificate_expires_seconds", "When, in Unix time", ends, {}
        refused = "Requests and connections that our pages refused"
        for (door, reason), count in refusals.counts.items():
            yield f"{name}http_refused_total", refused, count, {"door": door, "reason": reason}


@contextmanager
def socket_folder() -> Iterator[Path]:
    """A private folder while the context lasts."""
    folder, handle = private_folder("waypoint")
    try:
        with folder as path:
            yield Path(path)
    finally:
        os.close(handle)
