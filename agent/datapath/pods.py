"""One pod's kernel state: its values, its pins and the order in which they come and go.

Pins of a pod, in `pods/<uid>/`, written in this order and removed in the reverse one:

    about      an array map with one JSON record: uid, netns cookie, addresses, port. First in, so
               that whatever follows can be undone by uid alone, also after the pod's death.
    listeners  the sockmap with the tunnel's two listeners. Before the link: sk_lookup refuses what
               has no listener, and a pod under enrolment must not lose connections.
    link       sk_lookup on the pod's netns. From here on inbound is the tunnel's.
    shortcut   tcx on the host's end of its veth, if there is one and the kernel has tcx.
    pods[cookie] in the node's map, not a pin: from here on outbound is the tunnel's.
    locals[address] in the node's map, last in and first out: from here on other pods of this node
               may reach it without the tunnel, if it allows that and the ztunnel says so.

The record is JSON, and `listeners` is two slots, in every version: a newer agent with another
layout can take over pods it did not capture. Whether a pod belongs in the mesh is not decided here.
"""

import json
import os
import re
import socket
import struct
from dataclasses import dataclass
from typing import Any

from agent.datapath import netns
from agent.datapath.bpfsys import Map
from agent.datapath.errors import PodRefused
from bpf import layout
from control.model.address import Address, format_address, mapped, parse_address

# The longest file name. A Kubernetes uid has 36 characters and needs no escape.
_PIN_NAME_BYTES_MAX = 255


@dataclass(frozen=True, slots=True)
class PodCapture:
    """What it takes to capture a pod; the fds stay the caller's."""

    uid: str
    netns_fd: int
    addresses: tuple[Address, ...]
    outbound_port: int
    hbone_listener_fd: int
    plaintext_listener_fd: int
    direct: bool = False  # may its same-node connections, out and in, go without the tunnel?


@dataclass(frozen=True, slots=True)
class CapturedPod:
    uid: str
    cookie: int
    addresses: tuple[Address, ...]
    outbound_port: int
    workload_id: int = (
        0  # who it is in the direct path's tables; 0: a capture that has no part in it
    )
    direct: bool = False
    device: int = 0  # the host's end of its veth, with our shortcut on it; 0: has none


def pin_name(uid: str) -> str:
    """A reversible file name: bpffs refuses dots, and a uid is somebody else's text."""
    name = "".join(
        sign
        if re.fullmatch(r"[A-Za-z0-9_-]", sign)
        else "".join(f"={b:02x}" for b in sign.encode())
        for sign in uid
    )
    if not 0 < len(name) <= _PIN_NAME_BYTES_MAX:
        raise PodRefused(f"a pod uid of {len(uid)} characters cannot be a file name")
    return name


def pod_value(pod: CapturedPod) -> layout.PodValue:
    """The value of pods[cookie]; at most one address per family, at least one at all."""
    addresses = pod.addresses
    value = layout.PodValue(
        mode=layout.PodMode.CAPTURE,
        outbound_port=socket.htons(pod.outbound_port),
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
    """The request against what the fds really are: three handles, one namespace."""
    if not 0 < pod.outbound_port < 65536:
        raise PodRefused(f"outbound port {pod.outbound_port}")
    for fd in (pod.hbone_listener_fd, pod.plaintext_listener_fd):
        listening_port(fd, pod.netns_fd)
    cookie = netns.cookie_of_socket(pod.hbone_listener_fd)
    return CapturedPod(pod.uid, cookie, pod.addresses, pod.outbound_port, direct=pod.direct)


def listening_port(fd: int, netns_fd: int) -> int:
    """The port of a TCP listener in that namespace. Whatever else a tunnel sent is refused."""
    try:
        if netns.inode_of_socket(fd) != os.fstat(netns_fd).st_ino:
            raise PodRefused("a listener lives in another network namespace")
        with netns.borrowed(fd) as sock:
            is_tcp = sock.family in (socket.AF_INET, socket.AF_INET6) and (
                sock.proto == socket.IPPROTO_TCP
            )
            if not is_tcp or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                raise PodRefused("a listener that is none")
            return int(sock.getsockname()[1])
    except OSError as exc:
        raise PodRefused("a listener that is not even a socket") from exc


def about_bytes(pod: CapturedPod) -> bytes:
    record = {
        "uid": pod.uid,
        "cookie": pod.cookie,
        "addresses": _texts(pod.addresses),
        "outbound_port": pod.outbound_port,
        "workload_id": pod.workload_id,
        "direct": pod.direct,
    }
    text = json.dumps(record).encode()
    if len(text) > layout.ABOUT_BYTES:
        raise PodRefused(f"the record of {pod.uid} has {len(text)} bytes")
    return text.ljust(layout.ABOUT_BYTES, b"\0")


def parse_about(data: bytes) -> CapturedPod | None:
    """None for a record that was never written: the agent died between two steps."""
    text = data.rstrip(b"\0")
    if not text:
        return None
    record: dict[str, Any] = json.loads(text)
    return CapturedPod(
        record["uid"],
        record["cookie"],
        tuple(map(parse_address, record["addresses"])),
        record["outbound_port"],
        record.get("workload_id", 0),  # a version without the direct path wrote it
        record.get("direct", False),
    )


def _texts(addresses: tuple[Address, ...]) -> list[str]:
    return [format_address(address) for address in addresses]


def cookie_key(cookie: int) -> bytes:
    return struct.pack("=Q", cookie)


def slot_key(slot: int) -> bytes:
    return struct.pack("=I", slot)


def set_listeners(listeners: Map, pod: PodCapture) -> None:
    """Each slot changes in one step: a SYN meets the old listener or the new one, never none."""
    for slot, fd in (
        (layout.ListenerSlot.HBONE, pod.hbone_listener_fd),
        (layout.ListenerSlot.PLAINTEXT, pod.plaintext_listener_fd),
    ):
        listeners.update(slot_key(slot), struct.pack("=Q", fd))
