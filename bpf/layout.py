"""Twin of maps.h: every shared struct, enum, size and map; does not touch the kernel."""

import ctypes
import enum
import hashlib
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from typing import NamedTuple

PODS_MAX = 1024
EXEMPT_CGROUPS_MAX = 16
DESTINATIONS_MAX = 16384
CLIENTS_MAX = 16384
LOCALS_MAX = 2 * PODS_MAX
VERDICTS_MAX = 32768
SERVICES_MAX = 4096
SLOTS_MAX = 16
VOUCHED_MAX = 16384
SHORTCUTS_MAX = 16384
POD_FLOWS_MAX = 4096
PASSTHROUGH_MAX = 16384
PASSTHROUGH_NS = 10_000_000_000
FLOWS_BYTES = 1 << 20
FLOWS_UNREAD_MAX = FLOWS_BYTES // 2
VOUCH_GRACE_NS = 250_000_000
PROBE_GRACE_NS = 10_000_000_000
ROLE_SLOTS_BITS = 5
ROLE_SLOTS = 1 << ROLE_SLOTS_BITS
PLAINTEXT_MAX = 64
PROBES_MAX = 64
REFUSED_SLOTS_BITS = 3
REFUSED_SLOTS = 1 << REFUSED_SLOTS_BITS
ABOUT_MAX = 1
ABOUT_BYTES = 1024
HBONE_PORT = 15008
BLOCK_V4 = 0x7F400000
BLOCK_V4_BITS = 10
SOURCES_V4 = 0x7F600000
SIDE_V4_BITS = 11
BLOCK_V6_HIGH = 0xFD74756C
BLOCK_V6_LOW = 0x6C65
TARGETS_V6 = 0x6C650001
SOURCES_V6 = 0x6C650002
SOURCE_PORT = 1024
SHOW_CLIENT_OPTION = 0x7475
ORIGINAL_DESTINATION_OPTION = 80


class PodMode(enum.IntEnum):
    CLOSED = 0
    CAPTURE = 1


class Hint(enum.IntEnum):
    """The kernel's draw of an endpoint, for the ztunnel that gets the connection."""

    NONE = 0
    LOCAL = 1
    ELSEWHERE = 2


class FlowKind(enum.IntEnum):
    NONE = 0
    OPENED = 1
    CLOSED = 2
    FAILED = 3


class PlaintextRule(enum.IntEnum):
    """The fate of a SYN without a voucher, by the pod's port."""

    ASK = 0
    REFUSE = 1


class ListenerRole(enum.IntEnum):
    """Roles of the ztunnel's listeners in a pod; a worker has one of each."""

    HBONE = 0
    PLAINTEXT = 1
    OUTBOUND = 2


LISTENERS_MAX = len(ListenerRole) * ROLE_SLOTS


class Counter(enum.IntEnum):
    """Events in the kernel half; the lower-case name is the metric label."""

    CAPTURED_V4 = 0
    CAPTURED_V6 = 1
    PASSED_LOCAL = 2
    EXEMPT = 3
    DENIED_CLOSED = 4
    DENIED_NO_ADDRESS = 5
    DENIED_LINK_LOCAL = 6
    DESTINATION_KEPT = 7
    DESTINATION_READ = 8
    DESTINATION_MISSING = 9
    CLIENT_CLAIMED = 10
    CLIENT_REFUSED = 11
    CLIENT_SHOWN = 12
    INBOUND_LOCAL = 13
    INBOUND_HBONE = 14
    INBOUND_PLAINTEXT = 15
    INBOUND_DROPPED = 16
    STORAGE_FAILED = 17
    DIRECT_CHOSEN = 18
    DIRECT_NO_LEASE = 19
    DIRECT_NO_VERDICT = 20
    DIRECT_READER_BEHIND = 21
    DIRECT_ODD_SOCKET = 22
    DIRECT_LATE = 23
    DIRECT_VOUCHED = 24
    INBOUND_VOUCHED = 25
    INBOUND_STALE = 26
    FLOW_TOLD = 27
    FLOW_LOST = 28
    SHORTCUT_OPENED = 29
    SHORTCUT_FULL = 30
    SHORTCUT_TAKEN = 31
    PASSTHROUGH_TOLD = 32
    INBOUND_PASSTHROUGH = 33
    INBOUND_UNVOUCHED = 34
    INBOUND_STRICT = 35
    INBOUND_OUTBOUND = 36
    INBOUND_REFUSED = 37
    SOURCE_CHOSEN = 38
    SOURCE_MISSING = 39
    PROBE_VOUCHED = 40
    INBOUND_PROBE = 41
    DENIED_SOURCE_ROUTE = 42
    CLIENT_MISSING = 43
    DIRECT_POD_FULL = 44


class Address(ctypes.Structure):
    """16 bytes in network order; IPv4 is v4-mapped."""

    _fields_ = (("word", c_uint32 * 4),)


class PodValue(ctypes.Structure):
    _fields_ = (
        ("ip4", Address),
        ("ip6", Address),
        ("workload", c_uint32),
        ("device", c_uint32),
        ("has4", c_uint8),
        ("has6", c_uint8),
        ("mode", c_uint8),
        ("direct", c_uint8),
    )


class ConnectionKey(ctypes.Structure):
    """A connection inside a pod, as the sender of its SYN names it."""

    _fields_ = (
        ("netns", c_uint64),
        ("ip", Address),
        ("to", Address),
        ("port", c_uint16),
        ("to_port", c_uint16),
        ("pad", c_uint8 * 4),
    )


class Peer(ctypes.Structure):
    _fields_ = (("ip", Address), ("port", c_uint16), ("hint", c_uint8), ("pad", c_uint8 * 5))


class Local(ctypes.Structure):
    _fields_ = (
        ("workload", c_uint32),
        ("device", c_uint32),
        ("direct", c_uint8),
        ("pad", c_uint8 * 3),
    )


class DirectState(ctypes.Structure):
    _fields_ = (("generation", c_uint64), ("lease_until_ns", c_uint64))


class VerdictKey(ctypes.Structure):
    _fields_ = (
        ("source", c_uint32),
        ("destination", c_uint32),
        ("port", c_uint16),
        ("pad", c_uint8 * 2),
    )


class ServiceKey(ctypes.Structure):
    _fields_ = (("source", c_uint32), ("port", c_uint16), ("pad", c_uint8 * 2), ("vip", Address))


class ServiceSlot(ctypes.Structure):
    _fields_ = (
        ("cumulative", c_uint32),
        ("workload", c_uint32),
        ("ip", Address),
        ("port", c_uint16),
        ("pad", c_uint8 * 2),
    )


class ServiceValue(ctypes.Structure):
    _fields_ = (("total", c_uint32), ("count", c_uint32), ("slots", ServiceSlot * SLOTS_MAX))


class DirectSocket(ctypes.Structure):
    _fields_ = (
        ("generation", c_uint64),
        ("opened_ns", c_uint64),
        ("received", c_uint64),
        ("client", Address),
        ("target", Address),
        ("original", Address),
        ("source", c_uint32),
        ("destination", c_uint32),
        ("client_port", c_uint16),
        ("target_port", c_uint16),
        ("original_port", c_uint16),
        ("established", c_uint8),
        ("fin_acked", c_uint8),
        ("fin_received", c_uint8),
        ("pad", c_uint8 * 7),
    )


class Tuple(ctypes.Structure):
    _fields_ = (
        ("source", Address),
        ("destination", Address),
        ("source_port", c_uint16),
        ("destination_port", c_uint16),
        ("pad", c_uint8 * 4),
    )


class Vouched(ctypes.Structure):
    _fields_ = (
        ("generation", c_uint64),
        ("at_ns", c_uint64),
        ("destination", c_uint32),
        ("probe", c_uint8),
        ("own", c_uint8),
        ("pad", c_uint8 * 2),
    )


class RefusedSlot(ctypes.Structure):
    """The last refused SYN of a slot, and how many there were."""

    _fields_ = (
        ("count", c_uint64),
        ("source", Address),
        ("destination", Address),
        ("source_port", c_uint16),
        ("destination_port", c_uint16),
        ("reason", c_uint32),
    )


class Shortcut(ctypes.Structure):
    _fields_ = (("source", c_uint32), ("target", c_uint32), ("ending", c_uint32))


class FlowEvent(ctypes.Structure):
    _fields_ = (
        ("id", c_uint64),
        ("generation", c_uint64),
        ("opened_ns", c_uint64),
        ("age_ns", c_uint64),
        ("sent", c_uint64),
        ("received", c_uint64),
        ("client", Address),
        ("target", Address),
        ("original", Address),
        ("source", c_uint32),
        ("destination", c_uint32),
        ("srtt_us", c_uint32),
        ("retransmits", c_uint32),
        ("client_port", c_uint16),
        ("target_port", c_uint16),
        ("original_port", c_uint16),
        ("kind", c_uint8),
        ("aborted", c_uint8),
    )


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "address": Address,
    "pod_value": PodValue,
    "connection_key": ConnectionKey,
    "peer": Peer,
    "local": Local,
    "direct_state": DirectState,
    "verdict_key": VerdictKey,
    "service_key": ServiceKey,
    "service_slot": ServiceSlot,
    "service_value": ServiceValue,
    "direct_socket": DirectSocket,
    "tuple": Tuple,
    "vouched": Vouched,
    "refused_slot": RefusedSlot,
    "shortcut": Shortcut,
    "flow_event": FlowEvent,
}


class MapType(enum.IntEnum):
    """Linux's numbers (enum bpf_map_type)."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    SOCKMAP = 15
    SK_STORAGE = 24
    RINGBUF = 27


class MapSpec(NamedTuple):
    id: int  # enum map_id
    type: MapType
    key_bytes: int
    value_bytes: int
    max_entries: int
    per_pod: bool = False

    @property
    def countable(self) -> bool:
        """True when its keys can be counted: a socket store has none, an array is always full."""
        return self.type in (MapType.HASH, MapType.LRU_HASH)


def _keyed(
    number: int, map_type: MapType, key: type[ctypes.Structure], value_bytes: int, entries_max: int
) -> MapSpec:
    return MapSpec(number, map_type, ctypes.sizeof(key), value_bytes, entries_max)


_PEER_BYTES = ctypes.sizeof(Peer)

MAPS: dict[str, MapSpec] = {
    "pods": MapSpec(0, MapType.HASH, 8, ctypes.sizeof(PodValue), PODS_MAX),
    "exempt_cgroups": MapSpec(1, MapType.HASH, 8, 1, EXEMPT_CGROUPS_MAX),
    "destinations": _keyed(2, MapType.LRU_HASH, ConnectionKey, _PEER_BYTES, DESTINATIONS_MAX),
    "clients": _keyed(3, MapType.LRU_HASH, ConnectionKey, _PEER_BYTES, CLIENTS_MAX),
    "shown_peer": MapSpec(4, MapType.SK_STORAGE, 4, _PEER_BYTES, 0),
    "claimed_client": MapSpec(5, MapType.SK_STORAGE, 4, _PEER_BYTES, 0),
    "counters": MapSpec(6, MapType.PERCPU_ARRAY, 4, 8, len(Counter)),
    "listeners": MapSpec(7, MapType.SOCKMAP, 4, 8, LISTENERS_MAX, per_pod=True),
    "about": MapSpec(8, MapType.ARRAY, 4, ABOUT_BYTES, ABOUT_MAX, per_pod=True),
    "locals": _keyed(9, MapType.HASH, Address, ctypes.sizeof(Local), LOCALS_MAX),
    "direct_state": MapSpec(10, MapType.ARRAY, 4, ctypes.sizeof(DirectState), 1),
    "verdicts": _keyed(11, MapType.LRU_HASH, VerdictKey, 8, VERDICTS_MAX),
    "services": _keyed(12, MapType.LRU_HASH, ServiceKey, ctypes.sizeof(ServiceValue), SERVICES_MAX),
    "direct_socket": MapSpec(13, MapType.SK_STORAGE, 4, ctypes.sizeof(DirectSocket), 0),
    "vouched": _keyed(14, MapType.LRU_HASH, Tuple, ctypes.sizeof(Vouched), VOUCHED_MAX),
    "flows": MapSpec(15, MapType.RINGBUF, 0, 0, FLOWS_BYTES),
    "workload_last": MapSpec(16, MapType.ARRAY, 4, 4, 1),
    "passthrough": _keyed(18, MapType.LRU_HASH, Peer, 8, PASSTHROUGH_MAX),
    "plaintext": MapSpec(19, MapType.HASH, 4, 4, PLAINTEXT_MAX, per_pod=True),
    "probes": MapSpec(20, MapType.HASH, 4, 4, PROBES_MAX, per_pod=True),
    "refused": MapSpec(
        21, MapType.PERCPU_ARRAY, 4, ctypes.sizeof(RefusedSlot), REFUSED_SLOTS, per_pod=True
    ),
    "kubelet_netns": MapSpec(22, MapType.ARRAY, 4, 8, 1),
    "source_routed": MapSpec(23, MapType.SK_STORAGE, 4, 4, 0),
    "original": MapSpec(24, MapType.SK_STORAGE, 4, _PEER_BYTES, 0),
    "pod_flows": MapSpec(25, MapType.LRU_HASH, 4, 8, LOCALS_MAX),
    "shortcuts": _keyed(17, MapType.HASH, Tuple, ctypes.sizeof(Shortcut), SHORTCUTS_MAX),
}
NODE_MAPS = tuple(name for name, spec in MAPS.items() if not spec.per_pod)
MAP_NAMES = {spec.id: name for name, spec in MAPS.items()}


def layout_hash() -> str:
    """Part of the pin folder's name, so that programs never open maps of another layout."""
    lines = [f"{name}={tuple(spec)}" for name, spec in sorted(MAPS.items())]
    for name, struct in sorted(STRUCTS.items()):
        fields = [
            (field, getattr(struct, field).offset, getattr(struct, field).size)
            for field, *_ in struct._fields_
        ]
        lines.append(f"{name}={fields}")
    lines += [
        f"{kind.__name__}={[*kind]}"
        for kind in (PodMode, PlaintextRule, ListenerRole, Hint, FlowKind, Counter)
    ]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
