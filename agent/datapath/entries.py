"""Entries of the direct path's tables: values to the kernel's bytes. Pure.

Ports and addresses are in network order there, addresses in their 16-byte form.
"""

import socket
import struct
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


@dataclass(frozen=True, slots=True)
class PlaintextRules:
    """`refused`: no one without an identity reaches any port of the pod, except `but` these; or
    else those alone are refused."""

    refused: bool
    but: frozenset[int] = frozenset()


def plaintext_entries(rules: PlaintextRules) -> dict[bytes, bytes]:
    """Entries of a pod's table; none if it would need more than there is room for, for then the
    ztunnel refuses."""
    if len(rules.but) >= layout.PLAINTEXT_MAX:
        return {}
    refusal = {True: layout.PlaintextRule.REFUSE, False: layout.PlaintextRule.ASK}
    by_port = {0: refusal[rules.refused]} | dict.fromkeys(rules.but, refusal[not rules.refused])
    return {struct.pack("=I", port): struct.pack("=I", rule) for port, rule in by_port.items()}


def probe_entries(ports: frozenset[int]) -> dict[bytes, bytes]:
    """Entries of a pod's table of ports that the kubelet probes; the lowest, if there are too many
    for it: the others are closed to the kubelet as to anybody."""
    return {
        struct.pack("=I", port): struct.pack("=I", 1) for port in sorted(ports)[: layout.PROBES_MAX]
    }


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
