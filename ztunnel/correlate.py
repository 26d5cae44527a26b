"""The headers of a CONNECT that help people: who asked, which pods, a random id. Never trusted."""

from __future__ import annotations

import random

from control.model.address import Endpoint, parse_endpoint
from control.model.workload import Service, Workload, WorkloadType

_KIND = {
    WorkloadType.DEPLOYMENT: "deployment",
    WorkloadType.CRONJOB: "cronjob",
    WorkloadType.POD: "pod",
    WorkloadType.JOB: "job",
}


def request_headers(
    client: Endpoint, source: Workload, service: Service | None, rng: random.Random
) -> list[tuple[str, str]]:
    host = f";host={service.hostname}" if service is not None else ""
    return [
        ("baggage", baggage(source)),
        ("forwarded", f'for="{client}"{host}'),
        ("traceparent", f"00-{rng.getrandbits(128):032x}-{rng.getrandbits(64):016x}-00"),
    ]


def baggage(workload: Workload) -> str:
    """OpenTelemetry's names for where a workload runs; what is empty is left out."""
    fields = (
        ("k8s.cluster.name", workload.cluster_id),
        ("k8s.namespace.name", workload.namespace),
        (f"k8s.{_KIND[workload.workload_type]}.name", workload.workload_name),
        ("service.name", workload.canonical_name),
        ("service.version", workload.canonical_revision),
        ("cloud.region", workload.locality.region),
        ("cloud.availability_zone", workload.locality.zone),
    )
    return ",".join(f"{name}={value}" for name, value in fields if value)


def forwarded_client(headers: list[tuple[str, str]], tunnel_peer: Endpoint) -> Endpoint:
    """The client as the app shall see it: the address is that of the tunnel's other end, which
    lives in the client's own network namespace; only the port is taken from what it says."""
    for name, value in headers:
        if name != "forwarded":
            continue
        said = value.partition(";")[0].strip()
        if not said.startswith('for="') or not said.endswith('"'):
            break
        try:
            client = parse_endpoint(said[5:-1])
        except ValueError:
            break
        if client.address == tunnel_peer.address:
            return client
        break
    return tunnel_peer
