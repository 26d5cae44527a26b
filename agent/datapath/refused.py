"""The SYNs that the kernel half refused in a pod, from the pod's own table; says it to nobody.

A table has a few slots, by the sender: each counts, and keeps the last one. So a flood costs
neither the kernel nor its reader anything, and what happens to one pod hides nothing of another.
"""

import socket
import struct
from collections.abc import Mapping
from typing import NamedTuple

from agent.datapath.maps import Map, cpu_count_possible
from bpf import layout
from bpf.layout import Counter
from control.model.address import Endpoint, canonical

# By (slot, processor): the count, and the last of them.
Slots = Mapping[tuple[int, int], tuple[int, "RefusedSyn"]]


class RefusedSyn(NamedTuple):
    reason: str  # name of its counter
    source: Endpoint
    destination: Endpoint


def read(table: Map) -> Slots:
    cpus = cpu_count_possible()
    size = table.value_bytes
    found: dict[tuple[int, int], tuple[int, RefusedSyn]] = {}
    for slot in range(layout.REFUSED_SLOTS):
        raw = table.lookup(struct.pack("=I", slot), size * cpus) or b""
        for cpu in range(len(raw) // size):
            value = layout.RefusedSlot.from_buffer_copy(raw, cpu * size)
            if value.count:
                found[slot, cpu] = value.count, _syn(value)
    return found


def _syn(value: layout.RefusedSlot) -> RefusedSyn:
    return RefusedSyn(
        Counter(value.reason).name.lower(),
        _endpoint(value.source, value.source_port),
        _endpoint(value.destination, value.destination_port),
    )


def _endpoint(address: layout.Address, port: int) -> Endpoint:
    return Endpoint(canonical(bytes(address)), socket.ntohs(port))
