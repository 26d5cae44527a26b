"""Admin pages of the control plane as JSON: its knowledge, resources and refusals."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from io import BytesIO
from itertools import islice
from typing import Any, TypeVar

from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from control.kit import log as kit_log
from control.kit.clock import Clock, SystemClock
from control.kit.http import Handler, HttpRequest, HttpResponse, Routes, alive, as_json, text
from control.kit.log import event
from control.kit.metrics import SharedPage
from control.kit.slices import made_in_slices, sorted_steps
from control.kit.version import version
from control.model.address import format_address
from control.model.intent import Intent
from control.model.route import Waypoint
from control.model.workload import Service, Workload
from control.server.ca.authorities import Authorities
from control.server.callers.arrivals import Arrivals
from control.server.callers.budget import Tenant
from control.server.callers.door import Door
from control.server.compile.settings import Settings
from control.server.metrics import Metrics, short_type
from control.server.sources.lasting import LastingSource
from control.server.xds.publish import Publisher
from control.server.xds.rows import client_row, time_text, waypoint_rows
from control.server.xds.streams import DeltaService
from control.wire.convert import resource_to_wire
from control.wire.convert_policy import policy_to_wire
from control.wire.waypoint_page import rows_of

log = logging.getLogger("admin")

ROWS_MAX = 100_000  # a page has; what is left out is said
CALLER_ROWS_MAX = 1000
SLICE = 10  # rows, some 1 ms

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Callers:
    """Shares that each tenant holds, and how often it was refused."""

    arrivals: Arrivals
    door: Door
    delta: DeltaService

    def rows(self) -> list[dict[str, Any]]:
        """Those refused most come first."""
        held = {
            "connections": self.arrivals.connections,
            "unadmitted": self.arrivals.unadmitted,
            "silent": self.arrivals.silent,
            "calls": self.door.calls,
            "streams": self.delta.streams,
            "names_bytes": self.delta.names,
            "receiving": self.arrivals.receiving.shares,
            "sending_bytes": self.delta.sending.shares,
        }
        found: dict[Tenant, dict[str, Any]] = {}
        for name, shares in held.items():
            for tenant, amount in shares.tenants():
                found.setdefault(tenant, {})[name] = amount
        for tenant, refusals in self.arrivals.refusals.items():
            found.setdefault(tenant, {})["refused"] = {
                why.word: count for why, count in refusals.by_reason.items()
            }
        blank = {**dict.fromkeys(held, 0), "refused": {}}
        rows = [{"kind": each.kind, "name": each.name, **blank, **found[each]} for each in found]
        rows.sort(key=lambda row: (-sum(row["refused"].values()), row["kind"], row["name"]))
        return rows[:CALLER_ROWS_MAX]


class AdminPages:
    def __init__(
        self,
        publisher: Publisher,
        delta: DeltaService,
        authorities: Authorities,
        source: LastingSource,
        clock: Clock,
        callers: Callers,
        leader: Callable[[], dict[str, object]] | None = None,
    ) -> None:
        self._leader = leader
        self._callers = callers
        self._publisher = publisher
        self._delta = delta
        self._authorities = authorities
        self._source = source
        self._clock = clock
        self._started_at = clock.now()

    def routes(self) -> Routes:
        publisher = self._publisher
        return {
            ("GET", "/status"): _page(self.status),
            ("GET", "/problems"): _page(lambda to: to.array(publisher.problems, asdict)),
            ("GET", "/notes"): _page(lambda to: to.array(publisher.notes, asdict)),
            ("GET", "/workloads"): _page(
                lambda to: to.rows(publisher.mesh.workloads, workload_row)
            ),
            ("GET", "/services"): _page(lambda to: to.rows(publisher.mesh.services, service_row)),
            ("GET", "/policies"): _page(lambda to: to.array(publisher.policy_statuses, asdict)),
            ("GET", "/pods"): _page(lambda to: to.rows(publisher.mesh.pods, pod_row)),
            ("GET", "/waypoints"): _page(self.waypoints),
            ("GET", "/routes"): _page(lambda to: to.array(rows_of(_waypoints(publisher)), _same)),
            ("GET", "/callers"): _page(lambda to: to.array(self._callers.rows(), _same)),
            ("GET", "/config"): _page(self.config),
            ("GET", "/log"): log_levels,
            ("POST", "/log"): set_log_level,
        }

    async def status(self, to: PageText) -> None:
        publisher = self._publisher
        settings: Settings = publisher.settings
        root = self._authorities.current.root
        replica = {} if self._leader is None else {"replica": self._leader()}
        about = {
            **replica,
            "version": version(),
            "started_at": time_text(self._started_at),
            "trust_domain": settings.trust_domain,
            "cluster_id": settings.cluster_id,
            "network": settings.network,
            "root_namespace": settings.root_namespace,
            "sources": [self._source.name],
            "source": asdict(self._source.standing),
            "generation": publisher.generation,
            "objects": publisher.counts,
            "ignored": dict(publisher.ignored),
            "resources": {
                short_type(url): len(publisher.cache.entries(url))
                for url in sorted(publisher.cache.types)
            },
            "root": {
                "serial": f"{root.serial_number:x}",
                "not_after": time_text(root.not_valid_after_utc),
            },
        }
        nodes = sorted(self._delta.clients, key=lambda each: each.node_id)
        to.say("{" + "".join(f"{json.dumps(name)}: {json.dumps(about[name])},\n" for name in about))
        to.say('"nodes": ')
        await to.array(nodes, client_row)
        to.say(',\n"problems": ')
        await to.array(publisher.problems, asdict)
        to.say(',\n"notes": ')
        await to.array(publisher.notes, asdict)
        to.say("}")

    async def waypoints(self, to: PageText) -> None:
        delta = self._delta
        rows = waypoint_rows(self._publisher.racks, delta.clients, delta.nacks)
        await to.array(rows, _same)

    async def config(self, to: PageText) -> None:
        mesh = self._publisher.mesh
        addresses: dict[str, Workload | Service] = {**mesh.workloads, **mesh.services}
        to.say('{"addresses": ')
        await to.table(addresses, resource_to_wire)
        to.say(',\n"policies": ')
        await to.table(mesh.policies, policy_to_wire)
        to.say("}")


def _waypoints(publisher: Publisher) -> list[Waypoint]:
    found = publisher.gateways.waypoints
    return [found[key] for key in sorted(found)]


class PageText:
    """The text of a page, which grows in slices: others have the loop in between, and nothing of it
    is copied at its end."""

    def __init__(self) -> None:
        self._made = BytesIO()

    def say(self, text: str) -> None:
        self._made.write(text.encode())

    def body(self) -> bytes:
        return self._made.getvalue()

    async def array(self, values: Iterable[_Value], row: Callable[[_Value], Any]) -> None:
        """A row a line."""
        self.say("[")
        await self._lines(values, lambda value: json.dumps(row(value)))
        self.say("]")

    async def rows(self, values: Mapping[str, _Value], row: Callable[[_Value], Any]) -> None:
        """The same, by name. Those that go meanwhile are left out."""
        names = await _in_order(values)
        found = (values.get(name) for name in names)
        await self.array((each for each in found if each is not None), row)

    async def table(self, values: Mapping[str, _Value], wire: Callable[[_Value], Any]) -> None:
        def line(pair: tuple[str, _Value]) -> str:
            return f"{json.dumps(pair[0])}: {json.dumps(json_format.MessageToDict(wire(pair[1])))}"

        names = await _in_order(values)
        found = ((name, values.get(name)) for name in names)
        self.say("{")
        await self._lines(((name, each) for name, each in found if each is not None), line)
        self.say("}")

    async def _lines(self, values: Iterable[_Value], line: Callable[[_Value], str]) -> None:
        for number, value in enumerate(islice(values, ROWS_MAX)):
            self.say(",\n" + line(value) if number else line(value))
            if number % SLICE == SLICE - 1:
                await asyncio.sleep(0)


async def _in_order(values: Mapping[str, object]) -> Iterator[str]:
    """The names that are there now."""
    return await made_in_slices(sorted_steps(list(values)), SystemClock())


def _page(make: Callable[[PageText], Awaitable[None]]) -> Handler:
    async def page(_: HttpRequest) -> HttpResponse:
        text = PageText()
        await make(text)
        text.say("\n")
        return HttpResponse(200, text.body(), {"content-type": "application/json"})

    return page


def metrics_routes(metrics: Metrics) -> Routes:
    async def registry() -> CollectorRegistry:
        return metrics.registry

    shared = SharedPage(registry)

    async def page(request: HttpRequest) -> HttpResponse:
        headers, body = await shared.get(request.headers)
        return HttpResponse(200, body, headers)

    async def readiness(_: HttpRequest) -> HttpResponse:
        return text("ready\n")

    return {
        ("GET", "/metrics"): page,
        ("GET", "/healthz/ready"): readiness,
        ("GET", "/healthz/live"): alive,
    }


async def log_levels(_: HttpRequest) -> HttpResponse:
    return as_json(kit_log.current_levels())


async def set_log_level(request: HttpRequest) -> HttpResponse:
    level = request.query.get("level", "")
    try:
        kit_log.set_level(level)
    except ValueError as exc:
        return as_json({"error": str(exc), "reason": "bad_level"}, 400)
    event(log, logging.INFO, "log.level", level=level)
    return as_json(kit_log.current_levels())


def workload_row(value: Workload) -> dict[str, Any]:
    return {
        "uid": value.uid,
        "namespace": value.namespace,
        "name": value.name,
        "addresses": [format_address(each) for each in value.addresses],
        "node": value.node,
        "identity": str(value.identity) if value.service_account else "",
        "protocol": value.tunnel_protocol.name,
        "status": value.status.name,
        "workload_type": value.workload_type.name,
        "workload_name": value.workload_name,
        "canonical_name": value.canonical_name,
        "canonical_revision": value.canonical_revision,
        "services": sorted(value.services),
        "policies": list(value.authorization_policies),
    }


def service_row(value: Service) -> dict[str, Any]:
    return {
        "namespace": value.namespace,
        "name": value.name,
        "hostname": value.hostname,
        "addresses": [format_address(each.address) for each in value.addresses],
        "outer_addresses": [
            {"address": format_address(each.address), "ports": list(each.ports)}
            for each in value.outer_addresses
        ],
        "affinity_s": value.affinity_s,
        "ports": [
            {"port": each.service_port, "target": each.target_port, "app": each.app_protocol.name}
            for each in value.ports
        ],
    }


def pod_row(value: Intent) -> dict[str, Any]:
    return {
        "uid": value.uid,
        "namespace": value.namespace,
        "name": value.name,
        "service_account": value.service_account,
        "node": value.node,
        "addresses": [format_address(each) for each in value.addresses],
        "enrolled": value.enrolled,
        "reason": value.reason,
        "direct": value.direct,
        "direct_reason": value.direct_reason,
    }


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return row
