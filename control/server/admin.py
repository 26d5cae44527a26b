"""Admin pages of the control plane as JSON: its knowledge, resources and refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from google.protobuf import json_format
from prometheus_client import CollectorRegistry

from control.kit import log as kit_log
from control.kit.clock import Clock
from control.kit.http import HttpRequest, HttpResponse, Routes, alive, as_json, text
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
            ("GET", "/status"): self._page(self.status),
            ("GET", "/problems"): self._page(lambda: [asdict(each) for each in publisher.problems]),
            ("GET", "/notes"): self._page(
                lambda: [asdict(each) for each in publisher.mesh.notes[:ROWS_MAX]]
            ),
            ("GET", "/workloads"): self._page(
                lambda: _rows(publisher.mesh.workloads, workload_row)
            ),
            ("GET", "/services"): self._page(lambda: _rows(publisher.mesh.services, service_row)),
            ("GET", "/policies"): self._page(
                lambda: [asdict(each) for each in publisher.mesh.statuses[:ROWS_MAX]]
            ),
            ("GET", "/pods"): self._page(lambda: _rows(publisher.mesh.pods, pod_row)),
            ("GET", "/callers"): self._page(self._callers.rows),
            ("GET", "/config"): self._page(self.config),
            ("GET", "/log"): log_levels,
            ("POST", "/log"): set_log_level,
        }

    def _page(self, make: Callable[[], Any]) -> Callable[[HttpRequest], Any]:
        async def page(_: HttpRequest) -> HttpResponse:
            return as_json(make())

        return page

    def status(self) -> dict[str, Any]:
        publisher = self._publisher
        settings: Settings = publisher.settings
        root = self._authorities.current.root
        replica = {} if self._leader is None else {"replica": self._leader()}
        return {
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
            "nodes": [
                client_row(each)
                for each in sorted(self._delta.clients, key=lambda each: each.node_id)
            ],
            "problems": [asdict(each) for each in publisher.problems],
            "notes": [asdict(each) for each in publisher.mesh.notes[:ROWS_MAX]],
        }

    def config(self) -> dict[str, Any]:
        mesh = self._publisher.mesh
        return {
            "addresses": {
                name: _message(resource_to_wire(value))
                for name, value in _bounded({**mesh.workloads, **mesh.services}).items()
            },
            "policies": {
                name: _message(policy_to_wire(value))
                for name, value in _bounded(mesh.policies).items()
            },
        }


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


def _rows(values: Mapping[str, Any], row: Callable[[Any], dict[str, Any]]) -> list[dict[str, Any]]:
    return [row(value) for value in _bounded(values).values()]


def _bounded(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values[name] for name in sorted(values)[:ROWS_MAX]}


def _message(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = json_format.MessageToDict(message)
    return found


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
