"""One pod's kernel state: its values, its pins, and the order in which they come and go.

Pins of a pod, in `pods/<uid>/`, written in this order and removed in the reverse one:

    about      an array map with one JSON record: uid, netns cookie, addresses, port. First, so
               that all that follows can be undone by uid alone, even after the pod's death.
    listeners  the sockmap with the ztunnel's listeners. Before the link: sk_lookup refuses
               connections without a listener, and a pod being enrolled must not lose any.
    plaintext  the ports at which plaintext is refused. Before the link, which reads it.
    probes     the ports to which the kubelet may go, past the ztunnel. Before the link, too.
    refused    the last SYNs that were refused here, for the agent's log. Before the link, too.
    link       sk_lookup on the pod's netns. From here on the ztunnel gets inbound connections.
    shortcut   tcx on the host's end of its veth, if it has one and the kernel has tcx.
    pods[cookie] in the node's map, not a pin: from here on it gets outbound connections too.
    locals[address] in the node's map, last in and first out: from here on its own SYNs count as
               plaintext for nobody, and other pods of this node may reach it without the tunnel, if
               it allows that and the ztunnel says so.

The record is JSON in every version, so that a newer agent with another layout can take over pods it
did not capture. The decision to capture is made elsewhere.
"""

import json
import os
import re
import socket
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from agent.datapath import netns
from agent.datapath.errors import PodRefused
from agent.datapath.maps import Map
from bpf import layout
from control.model.address import Address, format_address, mapped, parse_address

# The longest file name. A Kubernetes uid has 36 characters and needs no escape.
_PIN_NAME_BYTES_MAX = 255
_ODD_SIGN = re.compile(r"[^A-Za-z0-9_-]")


class ListenerFds(NamedTuple):
    """One worker's listeners in a pod, in the order of C3."""

    outbound: int
    plaintext: int
    hbone: int


@dataclass(frozen=True, slots=True)
class PodCapture:
    """A request to capture a pod; the caller keeps and closes the descriptors."""

    uid: str
    netns_fd: int
    addresses: tuple[Address, ...]
    listeners: tuple[ListenerFds, ...]  # each worker's
    direct: bool = False  # its connections inside the node, out and in, may leave out the tunnel


@dataclass(frozen=True, slots=True)
class CapturedPod:
    uid: str
    cookie: int
    addresses: tuple[Address, ...]
    workload_id: int = 0  # its name in the direct path's tables; 0: it has no part in it
    direct: bool = False
    device: int = 0  # the host's end of its veth, if our shortcut is on it; 0: none


def pin_name(uid: str) -> str:
    """A uid as a file name, one for each uid: bpffs refuses dots, and a uid is foreign text."""
    name = _ODD_SIGN.sub(lambda odd: "".join(f"={b:02x}" for b in odd[0].encode()), uid)
    if not 0 < len(name) <= _PIN_NAME_BYTES_MAX:
        raise PodRefused(f"a pod uid of {len(uid)} characters cannot be a file name")
    return name


def pod_value(pod: CapturedPod) -> layout.PodValue:
    """The value of pods[cookie]; PodRefused unless it has one or two addresses, one per family."""
    addresses = pod.addresses
    value = layout.PodValue(
        mode=layout.PodMode.CAPTURE,
        workload=pod.workload_id,
        device=pod.device,
        direct=pod.direct,
    )
    for address in addresses:
        raw = layout.Address.from_buffer_copy(mapped(address))
        if len(address) == 4:
            if value.has4:
                raise PodRefused(f"two IPv4 addresses: {_texts(addresses)}")
            value.ip4, value.has4 = raw, 1
        else:
            if value.has6:
                raise PodRefused(f"two IPv6 addresses: {_texts(addresses)}")
            value.ip6, value.has6 = raw, 1
    if not addresses:
        raise PodRefused("a pod without an address")
    return value


def check(pod: PodCapture) -> CapturedPod:
    """Check that the descriptors are a namespace and TCP listeners in it."""
    if not 0 < len(pod.listeners) <= layout.ROLE_SLOTS:
        raise PodRefused(f"listeners of {len(pod.listeners)} workers")
    for fds in pod.listeners:
        for fd in fds:
            check_listener(fd, pod.netns_fd)
    cookie = netns.cookie_of_socket(pod.listeners[0].hbone)
    return CapturedPod(pod.uid, cookie, pod.addresses, direct=pod.direct)


def by_worker(fds: Sequence[int]) -> tuple[ListenerFds, ...]:
    """Descriptors in the order of C3, three for each worker."""
    roles = len(layout.ListenerRole)
    starts = range(0, len(fds), roles)
    return tuple(ListenerFds(*fds[start : start + roles]) for start in starts)


def check_listener(fd: int, netns_fd: int) -> None:
    """PodRefused unless it is a TCP listener in that namespace."""
    try:
        if netns.inode_of_socket(fd) != os.fstat(netns_fd).st_ino:
            raise PodRefused("a listener lives in another network namespace")
        with netns.borrowed(fd) as sock:
            is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and (
                sock.proto == socket.IPPROTO_TCP
            )
            if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise PodRefused("not a TCP listener")
    except OSError as exc:
        raise PodRefused("a listener that is not a socket") from exc


def about_bytes(pod: CapturedPod) -> bytes:
    """The record of a pod, padded to the map's value."""
    record = {
        "uid": pod.uid,
        "cookie": pod.cookie,
        "addresses": _texts(pod.addresses),
        "workload_id": pod.workload_id,
        "direct": pod.direct,
    }
    text = json.dumps(record).encode()
    if len(text) > layout.ABOUT_BYTES:
        raise PodRefused(f"the record of {pod.uid} has {len(text)} bytes")
    return text.ljust(layout.ABOUT_BYTES, b"\0")


def parse_about(data: bytes) -> CapturedPod | None:
    """The record; None if it was never written, because an agent died between two steps."""
    text = data.rstrip(b"\0")
    if not text:
        return None
    record: dict[str, Any] = json.loads(text)
    return CapturedPod(
        record["uid"],
        record["cookie"],
        tuple(map(parse_address, record["addresses"])),
        record.get("workload_id", 0),  # absent in records of versions without the direct path
        record.get("direct", False),
    )


def _texts(addresses: tuple[Address, ...]) -> list[str]:
    return [format_address(address) for address in addresses]


def cookie_key(cookie: int) -> bytes:
    return struct.pack("=Q", cookie)


def slot_key(slot: int) -> bytes:
    return struct.pack("=I", slot)


def set_listeners(listeners: Map, pod: PodCapture) -> None:
    """Set all slots, each in one step: a SYN meets the old listener or the new one.

    The workers take turns until a role's slots are full, so each has its share of connections.
    """
    listeners.fill(_slots(pod))


def _slots(pod: PodCapture) -> Iterator[tuple[bytes, bytes]]:
    roles = (layout.ListenerRole.HBONE, layout.ListenerRole.PLAINTEXT, layout.ListenerRole.OUTBOUND)
    bases = [int(role) * layout.ROLE_SLOTS for role in roles]
    packed = [
        [struct.pack("=Q", fd) for fd in (fds.hbone, fds.plaintext, fds.outbound)]
        for fds in pod.listeners
    ]
    for number in range(layout.ROLE_SLOTS):
        values = packed[number % len(packed)]
        for base, value in zip(bases, values, strict=True):
            yield slot_key(base + number), value
