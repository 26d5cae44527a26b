"""Pages for people and programs: readiness, metrics, state. Reads, and passes wishes on."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

from control.kit import http
from control.kit.http import Handler, HttpRequest, HttpResponse, alive, as_json, text
from control.kit.log import RESET, current_levels, event, set_level
from ztunnel.config import OFF
from ztunnel.waypoint.envoy_admin import EnvoyAnswer, EnvoySilent

log = logging.getLogger("admin")

ENVOY_BYTES_MAX = 64 * 1024 * 1024  # a config dump of some thousand services

_INDEX = """tulle-waypoint
/status                 certificate, control plane, Envoy
/envoy/PAGE             GET: Envoy's own admin pages (config_dump, clusters, stats, ...)
/logging                GET: levels; POST ?level=info or ?level=info,xds:debug or ?reset
/certificates/rotate    POST: renew now
/metrics                as on the metrics port
/healthz/ready          as on the readiness port
/healthz/live           its event loop turns
/quitquitquit           POST: drain and end
"""


class WaypointSubject(Protocol):
    """The process, as far as the pages show or change it."""

    def status(self) -> dict[str, Any]: ...

    async def pending(self) -> list[str]: ...

    async def metrics(self) -> tuple[dict[str, str], bytes]: ...

    async def ask_envoy(self, target: str, body_bytes_max: int) -> EnvoyAnswer: ...

    def rotate(self) -> None: ...

    def quit(self) -> None: ...


class WaypointPages:
    def __init__(self, subject: WaypointSubject) -> None:
        self._subject = subject

    def admin(self) -> http.Routes:
        routes: dict[tuple[str, str], Handler] = {
            ("GET", "/"): self._index,
            ("GET", "/status"): self._status,
            ("GET", "/envoy/*"): self._envoy,
            ("GET", "/logging"): self._levels,
            ("POST", "/logging"): self._set_level,
            ("POST", "/certificates/rotate"): self._rotate,
            ("POST", "/quitquitquit"): self._quit,
        }
        return {**routes, **self.metrics(), **self.readiness()}

    def metrics(self) -> http.Routes:
        return {("GET", "/metrics"): self._metrics, ("GET", "/stats/prometheus"): self._metrics}

    def readiness(self) -> http.Routes:
        return {("GET", "/healthz/ready"): self._ready, ("GET", "/healthz/live"): alive}

    async def _index(self, _: HttpRequest) -> HttpResponse:
        return text(_INDEX)

    async def _status(self, _: HttpRequest) -> HttpResponse:
        pending = await self._subject.pending()
        return as_json({**self._subject.status(), "pending": pending})

    async def _envoy(self, request: HttpRequest) -> HttpResponse:
        query = f"?{urlencode(request.query)}" if request.query else ""
        target = request.path.removeprefix("/envoy") + query
        try:
            answer = await self._subject.ask_envoy(target, ENVOY_BYTES_MAX)
        except EnvoySilent as exc:
            return as_json({"error": str(exc), "reason": exc.reason}, 502)
        return HttpResponse(answer.status, answer.body)

    async def _levels(self, _: HttpRequest) -> HttpResponse:
        return as_json(current_levels())

    async def _set_level(self, request: HttpRequest) -> HttpResponse:
        try:
            set_level(request.query.get("level", RESET))
        except ValueError as exc:
            return as_json({"error": str(exc), "reason": "bad_level"}, 400)
        return as_json(current_levels())

    async def _rotate(self, _: HttpRequest) -> HttpResponse:
        self._subject.rotate()
        return text("rotating\n")

    async def _quit(self, _: HttpRequest) -> HttpResponse:
        self._subject.quit()
        return text("draining\n")

    async def _metrics(self, _: HttpRequest) -> HttpResponse:
        headers, body = await self._subject.metrics()
        return HttpResponse(200, body, headers)

    async def _ready(self, _: HttpRequest) -> HttpResponse:
        pending = await self._subject.pending()
        if not pending:
            return text("ready\n")
        return text(f"not ready, pending: {', '.join(pending)}\n", 500)


@asynccontextmanager
async def serve(
    subject: WaypointSubject, socket: Path, metrics: str, readiness: str
) -> AsyncIterator[None]:
    """Serve all pages while the context lasts. An address that is not to be had costs that page,
    and nothing else."""
    pages = WaypointPages(subject)
    doors: tuple[tuple[str, http.Routes, str | Path], ...] = (
        ("admin_socket", pages.admin(), socket),
        ("metrics", pages.metrics(), metrics),
        ("readiness", pages.readiness(), readiness),
    )
    async with AsyncExitStack() as stack:
        for door, routes, where in doors:
            if where in OFF:
                continue
            try:
                await stack.enter_async_context(http.HttpServer(routes, door=door).listen(where))
            except (OSError, ValueError) as exc:
                event(log, logging.ERROR, "page.not_served", page=door, address=where, error=exc)
        yield
