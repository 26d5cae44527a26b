"""Twin of maps.h: every shared struct, enum, size and map; never touches a kernel."""

import ctypes
import enum
import hashlib
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from typing import NamedTuple

PODS_MAX = 1024
EXEMPT_CGROUPS_MAX = 16
DESTINATIONS_MAX = 16384
CLIENTS_MAX = 16384
LISTENERS_MAX = 2
ABOUT_MAX = 1
ABOUT_BYTES = 1024
HBONE_PORT = 15008
SHOW_CLIENT_OPTION = 0x7475
ORIGINAL_DESTINATION_OPTION = 80


class PodMode(enum.IntEnum):
    CLOSED = 0
    CAPTURE = 1


class ListenerSlot(enum.IntEnum):
    HBONE = 0
    PLAINTEXT = 1


class Counter(enum.IntEnum):
    """Why the kernel half did something; the lower-case name is the metric label."""

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


class Address(ctypes.Structure):
    """16 bytes in network order; IPv4 is v4-mapped."""

    _fields_ = (("word", c_uint32 * 4),)


class PodValue(ctypes.Structure):
    _fields_ = (
        ("ip4", Address),
        ("ip6", Address),
        ("outbound_port", c_uint16),
        ("has4", c_uint8),
        ("has6", c_uint8),
        ("mode", c_uint8),
        ("pad", c_uint8 * 3),
    )


class SocketKey(ctypes.Structure):
    _fields_ = (("netns", c_uint64), ("ip", Address), ("port", c_uint16), ("pad", c_uint8 * 6))


class Peer(ctypes.Structure):
    _fields_ = (("ip", Address), ("port", c_uint16), ("pad", c_uint8 * 6))


STRUCTS: dict[str, type[ctypes.Structure]] = {
    "address": Address,
    "pod_value": PodValue,
    "socket_key": SocketKey,
    "peer": Peer,
}


class MapType(enum.IntEnum):
    """Linux's numbers (enum bpf_map_type)."""

    HASH = 1
    ARRAY = 2
    PERCPU_ARRAY = 6
    LRU_HASH = 9
    SOCKMAP = 15
    SK_STORAGE = 24


class MapSpec(NamedTuple):
    id: int  # enum map_id
    type: MapType
    key_bytes: int
    value_bytes: int
    max_entries: int
    per_pod: bool = False

    @property
    def countable(self) -> bool:
        """Can its fill be read by walking keys? A socket store cannot, an array is always full."""
        return self.type in (MapType.HASH, MapType.LRU_HASH)


_SOCKET_KEY_BYTES = ctypes.sizeof(SocketKey)
_PEER_BYTES = ctypes.sizeof(Peer)

MAPS: dict[str, MapSpec] = {
    "pods": MapSpec(0, MapType.HASH, 8, ctypes.sizeof(PodValue), PODS_MAX),
    "exempt_cgroups": MapSpec(1, MapType.HASH, 8, 1, EXEMPT_CGROUPS_MAX),
    "destinations": MapSpec(2, MapType.LRU_HASH, _SOCKET_KEY_BYTES, _PEER_BYTES, DESTINATIONS_MAX),
    "clients": MapSpec(3, MapType.LRU_HASH, _SOCKET_KEY_BYTES, _PEER_BYTES, CLIENTS_MAX),
    "shown_peer": MapSpec(4, MapType.SK_STORAGE, 4, _PEER_BYTES, 0),
    "claimed_client": MapSpec(5, MapType.SK_STORAGE, 4, _PEER_BYTES, 0),
    "counters": MapSpec(6, MapType.PERCPU_ARRAY, 4, 8, len(Counter)),
    "listeners": MapSpec(7, MapType.SOCKMAP, 4, 8, LISTENERS_MAX, per_pod=True),
    "about": MapSpec(8, MapType.ARRAY, 4, ABOUT_BYTES, ABOUT_MAX, per_pod=True),
}
NODE_MAPS = tuple(name for name, spec in MAPS.items() if not spec.per_pod)
MAP_NAMES = {spec.id: name for name, spec in MAPS.items()}


def layout_hash() -> str:
    """Names the pin folder: maps of one layout are never opened by programs of another."""
    lines = [f"{name}={tuple(spec)}" for name, spec in sorted(MAPS.items())]
    for name, struct in sorted(STRUCTS.items()):
        fields = [
            (field, getattr(struct, field).offset, getattr(struct, field).size)
            for field, *_ in struct._fields_
        ]
        lines.append(f"{name}={fields}")
    lines += [f"{kind.__name__}={[*kind]}" for kind in (PodMode, ListenerSlot, Counter)]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
