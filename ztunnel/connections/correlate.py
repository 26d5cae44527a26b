"""CONNECT headers for people: the client, its workload, the service it dialled, a random id. No
decision trusts them."""

from __future__ import annotations

import random

from control.model.address import Endpoint
from control.model.workload import Service, Workload, WorkloadType
from ztunnel.telemetry.parties import endpoint_text

_PORT_DIGITS_MAX = 5
_HOST = ";host="
# Pods of one node. Beyond this, all texts are made anew.
_BAGGAGE_KEPT_MAX = 1024
_baggage: dict[str, tuple[Workload, str]] = {}

_KIND = {
    WorkloadType.DEPLOYMENT: "deployment",
    WorkloadType.CRONJOB: "cronjob",
    WorkloadType.POD: "pod",
    WorkloadType.JOB: "job",
}

Fields = tuple[tuple[str, str], ...]


def request_fields(source: Workload) -> Fields:
    """Headers that all requests of a workload share."""
    return (("baggage", baggage(source)),)


def forwarded_host(service: Service | None) -> str:
    return f"{_HOST}{service.hostname}" if service is not None else ""


def single_request_fields(client: Endpoint, host: str, rng: random.Random) -> Fields:
    """Headers of one request alone; `host` comes from `forwarded_host`."""
    random_id = f"{rng.getrandbits(192):048x}"
    return (
        ("forwarded", f'for="{endpoint_text(client)}"{host}'),
        ("traceparent", f"00-{random_id[:32]}-{random_id[32:]}-00"),
    )


def baggage(workload: Workload) -> str:
    """A workload's place in OpenTelemetry's names; empty fields are left out."""
    kept = _baggage.get(workload.uid)
    if kept is not None and kept[0] is workload:
        return kept[1]
    if len(_baggage) >= _BAGGAGE_KEPT_MAX:
        _baggage.clear()
    text = _baggage_text(workload)
    _baggage[workload.uid] = (workload, text)
    return text


def _baggage_text(workload: Workload) -> str:
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


def forwarded_by(
    headers: list[tuple[str, str]], tunnel_peer: Endpoint, host: str
) -> tuple[Endpoint, str | None]:
    """The client as the app is to see it, and the service that it says it dialled: empty for none,
    None if the peer does not say.

    The client's address is that of the tunnel's other end, which lives in the client's own network
    namespace; only the port is taken from the headers. `host` is that address as text, in brackets
    for IPv6.
    """
    before = f'for="{host}:'
    for name, value in headers:
        if name == "forwarded":
            end = value.find('"', len(before))
            digits = value[len(before) : max(end, 0)]
            service = _service_in(value, end + 1)
            # No regular expression: it would take as long as all the rest.
            if value.startswith(before) and len(digits) <= _PORT_DIGITS_MAX:
                port = int(digits) if digits.isascii() and digits.isdigit() else 0
                if 0 < port < 65536:
                    return Endpoint(tunnel_peer.address, port), service
            return tunnel_peer, service
    return tunnel_peer, None


def _service_in(forwarded: str, after: int) -> str:
    rest = forwarded[after:]
    return rest[len(_HOST) :].strip('"') if rest.startswith(_HOST) else ""
