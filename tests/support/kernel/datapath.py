"""A node under test: the real kernel half and a ztunnel process in its cgroup, no mesh beyond."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent.datapath import bpffs, cgroups, folder
from agent.datapath.node import NodeDatapath
from agent.datapath.pods import ListenerFds, PodCapture
from agent.datapath.programs import SOURCE
from bpf import layout
from control.model.address import mapped, parse_address
from tests.support.kernel.netns import Address, Pod, Process, need_root

_numbers = itertools.count(1)
CACHE = Path(tempfile.gettempdir()) / "tulle-test-bpf"
SOL_IP, SOL_IPV6 = 0, 41
_STORAGE_BYTES = 128  # Rust proxies ask with a whole sockaddr_storage


@dataclass
class Listeners:
    """The listeners of a ztunnel in a pod, all on one port as ours."""

    outbound: socket.socket
    hbone: socket.socket
    plaintext: socket.socket

    def all(self) -> tuple[socket.socket, ...]:
        return (self.outbound, self.hbone, self.plaintext)

    def close(self) -> None:
        for listener in self.all():
            listener.close()


def open_listeners(ztunnel: Process, pod: Pod) -> Listeners:
    return Listeners(
        ztunnel.listen(pod, "::", 15008),
        ztunnel.listen(pod, "::", 15008),
        ztunnel.listen(pod, "::", 15008),
    )


class Bed:
    """One node: pin root, ztunnel cgroup with a ztunnel process in it, and the datapath opened."""

    def __init__(self, undo: contextlib.ExitStack) -> None:
        name = f"tk-{os.getpid()}-{next(_numbers)}"
        self._undo = undo
        self.cgroup_root = cgroups.find_root()
        self.ztunnel_cgroup = cgroups.create(self.cgroup_root / name)
        undo.callback(cgroups.remove, self.ztunnel_cgroup)
        self.pin_root = bpffs.ensure(Path("/sys/fs/bpf")) / name
        undo.callback(self._remove_pins)
        self.node = self.reopened()
        self.ztunnel = undo.enter_context(Process())
        self.node.exempt(self.ztunnel_cgroup)
        self.ztunnel.join_cgroup(self.ztunnel_cgroup)

    def _remove_pins(self) -> None:
        for version in folder.versions(self.pin_root):
            version.remove()
        folder.unpin(self.pin_root)

    def reopened(
        self,
        *,
        source: Path = SOURCE,
        version: str | None = None,
        wants_shortcuts: bool = True,
    ) -> NodeDatapath:
        """The datapath as a restarted agent finds it."""
        return NodeDatapath.open(
            self.pin_root,
            self.cgroup_root,
            CACHE,
            source=source,
            version=version,
            wants_shortcuts=wants_shortcuts,
        )

    def capture(
        self,
        pod: Pod,
        uid: str,
        listeners: Listeners | None = None,
        *others: Listeners,
        direct: bool = False,
        handover: bool = False,
    ) -> Listeners:
        """`others`: listeners of more workers. `handover`: nothing but the listeners is new."""
        opened = listeners or open_listeners(self.ztunnel, pod)
        workers = (opened, *others)
        for each in workers:
            self._undo.callback(each.close)
        addresses = tuple(parse_address(ip) for ip in (pod.ip4, pod.ip6) if ip)
        with pod.fd() as netns_fd:
            fds = tuple(
                ListenerFds(each.outbound.fileno(), each.plaintext.fileno(), each.hbone.fileno())
                for each in workers
            )
            request = PodCapture(uid, netns_fd, addresses, fds, direct)
            (self.node.hand_over if handover else self.node.capture)(request)
        return opened


@contextlib.contextmanager
def node_bed() -> Iterator[Bed]:
    need_root()
    with contextlib.ExitStack() as undo:
        yield Bed(undo)


def original_destination(accepted: socket.socket) -> Address:
    """As Istio's ztunnel asks: IPv4 first, then IPv6."""
    try:
        raw = accepted.getsockopt(SOL_IP, layout.ORIGINAL_DESTINATION_OPTION, _STORAGE_BYTES)
        assert len(raw) == 16
        (port,) = struct.unpack_from("!H", raw, 2)
        return socket.inet_ntop(socket.AF_INET, raw[4:8]), port
    except OSError:
        raw = accepted.getsockopt(SOL_IPV6, layout.ORIGINAL_DESTINATION_OPTION, _STORAGE_BYTES)
        assert len(raw) == 28
        (port,) = struct.unpack_from("!H", raw, 2)
        return socket.inet_ntop(socket.AF_INET6, raw[8:24]), port


def client_option(ip: str, port: int) -> tuple[int, int, bytes]:
    """The socket option that names the client which the app is to see."""
    shown = mapped(parse_address(ip)) + struct.pack("!H", port) + bytes(6)
    return SOL_IP, layout.SHOW_CLIENT_OPTION, shown
