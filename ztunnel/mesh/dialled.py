"""The service that a client dialled, for the log and the metrics of its destination. No I/O.

A tunnel carries the address of one pod, which may stand for several services. The client names the
service in its CONNECT (`forwarded: …;host=`, as Istio's ztunnel does). The name is believed if such
a service exists for the client, has this workload as an endpoint, and leads to this port: a client
that lies can choose among the services that it could have dialled, and no more.
"""

from __future__ import annotations

from control.model.workload import Service, Workload
from ztunnel.mesh.balance import target_ports
from ztunnel.mesh.state import State


def service_dialled(
    state: State, local: Workload, port: int, said: str | None, namespace: str
) -> Service | None:
    """The service of a connection to `port` of `local`, from a client in `namespace`.

    `said` is the client's word: empty if it dialled the pod itself; None if it says nothing, like a
    client outside the mesh. The service is known then only if it can be no other.
    """
    if said == "":
        return None
    if said is not None:
        named = state.service_named(said.lower(), namespace)
        return named if named is not None and _leads_to(named, local, port) else None
    found = [
        service
        for key in local.services
        if (service := state.service(key)) is not None and _leads_to(service, local, port)
    ]
    # A slice of any namespace can make this pod an endpoint; that must not hide its own service.
    own = [each for each in found if each.namespace == local.namespace] or found
    return own[0] if len(own) == 1 else None


def _leads_to(service: Service, local: Workload, port: int) -> bool:
    own = own_ports(local, service)
    return service.key in local.services and any(
        port in target_ports(service, own, each.service_port) for each in service.ports
    )


def own_ports(local: Workload, service: Service) -> tuple[tuple[int, int], ...]:
    """The workload's ports for those of the service, where it has its own."""
    own = local.services.get(service.key, ())
    return tuple((each.service_port, each.target_port) for each in own)
