"""Entries of the direct path's tables: values to the kernel's bytes. Pure.

Ports and addresses are in network order there, addresses in their 16-byte form.
"""

import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bpf import layout
from control.model.address import Address, Endpoint, mapped

WORKLOAD_ID_MAX: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class LocalEndpoint:
    """An endpoint of a service on this node; `weight` is its share of the service's total."""

    weight: int
    workload: int  # id
    target: Endpoint


def address_value(address: Address) -> layout.Address:
    return layout.Address.from_buffer_copy(mapped(address))


def verdict_key(source: int, destination: int, port: int) -> layout.VerdictKey:
    return layout.VerdictKey(source=source, destination=destination, port=socket.htons(port))


def service_key(source: int, vip: Address, port: int) -> layout.ServiceKey:
    return layout.ServiceKey(source=source, port=socket.htons(port), vip=address_value(vip))


def service_value(total: int, endpoints: Sequence[LocalEndpoint]) -> layout.ServiceValue:
    """Running sums of the weights, out of `total`.

    Endpoints beyond the table's slots count as not local: the tunnel finds them as well.
    ValueError when the weights add up to more than `total`, or `total` is no u32.
    """
    value = layout.ServiceValue(total=total)
    cumulative = 0
    for endpoint in endpoints[: layout.SLOTS_MAX]:
        cumulative += endpoint.weight
        value.slots[value.count] = layout.ServiceSlot(
            cumulative=cumulative,
            workload=endpoint.workload,
            ip=address_value(endpoint.target.address),
            port=socket.htons(endpoint.target.port),
        )
        value.count += 1
    if cumulative > total or not 0 < total <= WORKLOAD_ID_MAX:
        raise ValueError(f"weights of {cumulative} out of {total}")
    return value
