"""Admin pages of the control plane as JSON: its knowledge, resources and refusals."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from itertools import islice
from typing import Any, TypeVar

from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from control.kit import log as kit_log
from control.kit.clock import Clock
from control.kit.http import Handler, HttpRequest, HttpResponse, Routes, alive, as_json, text
from control.kit.log import event
from control.kit.metrics import SharedPage
from control.kit.version import version
from control.model.address import format_address
from control.model.intent import Intent
from control.model.workload import Service, Workload
from control.server.ca.authorities import Authorities
from control.server.callers.arrivals import Arrivals
from control.server.callers.budget import Tenant
from control.server.callers.door import Door
from control.server.compile.settings import Settings
from control.server.metrics import Metrics, short_type
from control.server.sources.lasting import LastingSource
from control.server.xds.publish import Publisher
from control.server.xds.streams import Client, DeltaService
from control.wire.convert import resource_to_wire
from control.wire.convert_policy import policy_to_wire

log = logging.getLogger("admin")

ROWS_MAX = 100_000  # a page has; what is left out is said
CALLER_ROWS_MAX = 1000
SLICE = 50  # rows, some 3 ms

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
            ("GET", "/problems"): _page(lambda: _array(publisher.problems, asdict)),
            ("GET", "/notes"): _page(lambda: _array(publisher.mesh.notes, asdict)),
            ("GET", "/workloads"): _page(lambda: _rows(publisher.mesh.workloads, workload_row)),
            ("GET", "/services"): _page(lambda: _rows(publisher.mesh.services, service_row)),
            ("GET", "/policies"): _page(lambda: _array(publisher.mesh.statuses, asdict)),
            ("GET", "/pods"): _page(lambda: _rows(publisher.mesh.pods, pod_row)),
            ("GET", "/callers"): _page(lambda: _array(self._callers.rows(), _same)),
            ("GET", "/config"): _page(self.config),
            ("GET", "/log"): log_levels,
            ("POST", "/log"): set_log_level,
        }

    async def status(self) -> str:
        publisher = self._publisher
        settings: Settings = publisher.settings
        root = self._authorities.current.root
        replica = {} if self._leader is None else {"replica": self._leader()}
        about = {
            **replica,
            "version": version(),
            "started_at": _time(self._started_at),
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
                "not_after": _time(root.not_valid_after_utc),
            },
        }
        nodes = sorted(self._delta.clients, key=lambda each: each.node_id)
        return _joined(
            about,
            nodes=await _array(nodes, client_row),
            problems=await _array(publisher.problems, asdict),
            notes=await _array(publisher.mesh.notes, asdict),
        )

    async def config(self) -> str:
        mesh = self._publisher.mesh
        addresses: dict[str, Workload | Service] = {**mesh.workloads, **mesh.services}
        return _joined(
            {},
            addresses=await _table(addresses, resource_to_wire),
            policies=await _table(mesh.policies, policy_to_wire),
        )


def _page(make: Callable[[], Awaitable[str]]) -> Handler:
    async def page(_: HttpRequest) -> HttpResponse:
        body = (await make()).encode() + b"\n"
        return HttpResponse(200, body, {"content-type": "application/json"})

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


def client_row(client: Client) -> dict[str, Any]:
    return {
        "id": client.node_id,
        "node": client.node,
        "peer": client.peer,
        "since": _time(client.since),
        "types": {
            short_type(url): {
                "wildcard": state.way.wildcard,
                "asked": len(state.asked),
                "known": state.way.held_count,
                "pending": state.way.pending_count,
                "in_flight": state.in_flight,
                "acked": state.acked,
                "nacked": state.nacked,
                "nacks": state.nacks,
            }
            for url, state in client.session.types.items()
        },
    }


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


async def _array(values: Iterable[_Value], row: Callable[[_Value], Any]) -> str:
    """A row a line."""
    return "[" + await _lines(values, lambda value: json.dumps(row(value))) + "]"


async def _rows(values: Mapping[str, _Value], row: Callable[[_Value], Any]) -> str:
    return await _array([values[name] for name in sorted(values)], row)


async def _table(values: Mapping[str, _Value], wire: Callable[[_Value], Any]) -> str:
    def line(pair: tuple[str, _Value]) -> str:
        return f"{json.dumps(pair[0])}: {json.dumps(json_format.MessageToDict(wire(pair[1])))}"

    return "{" + await _lines([(name, values[name]) for name in sorted(values)], line) + "}"


async def _lines(values: Iterable[_Value], line: Callable[[_Value], str]) -> str:
    """Lines of a page, made in slices: others have the loop in between."""
    found = []
    for number, value in enumerate(islice(values, ROWS_MAX)):
        found.append(line(value))
        if number % SLICE == SLICE - 1:
            await asyncio.sleep(0)
    return ",\n".join(found)


def _joined(about: Mapping[str, Any], **parts: str) -> str:
    """One object of small values and of large ones that are text already."""
    small = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in about.items()]
    return "{" + ",\n".join([*small, *(f'"{name}": {text}' for name, text in parts.items())]) + "}"


def _same(row: dict[str, Any]) -> dict[str, Any]:
    return row


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
