"""Two captured pods of one node with everything in force for direct connections between them."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from agent.datapath.entries import verdict_key
from agent.datapath.flows import FlowReport
from agent.datapath.folder import versions
from agent.datapath.maps import Map
from agent.datapath.ring import Ring
from agent.datapath.tables import DirectTables
from tests.support.kernel.datapath import SOL_IP, SOL_IPV6, Bed, Listeners, node_bed
from tests.support.kernel.netns import Address, Network, Pod, eventually

PORT = 8080
CLIENT4, CLIENT6 = "10.77.0.2", "fd77::2"
SERVER4, SERVER6 = "10.77.0.3", "fd77::3"
VIP4, VIP6 = "10.96.0.9", "fd96::9"
GENERATION = 7
LEASE_NS = 60_000_000_000


def now_ns() -> int:
    """The programs' clock."""
    return time.monotonic_ns()


@dataclass
class DirectBed:
    bed: Bed
    network: Network
    client: Pod
    server: Pod
    at_client: Listeners
    at_server: Listeners
    app: socket.socket  # the server's application
    flows: list[FlowReport] = field(default_factory=list)

    @property
    def tables(self) -> DirectTables:
        assert self.bed.node.direct is not None, self.bed.node.direct_obstacle
        return self.bed.node.direct

    def id_of(self, uid: str) -> int:
        (found,) = (pod.workload_id for pod in self.bed.node.captured() if pod.uid == uid)
        return found

    @property
    def client_id(self) -> int:
        return self.id_of("uid-client")

    @property
    def server_id(self) -> int:
        return self.id_of("uid-server")

    def open(self, generation: int = GENERATION) -> None:
        """A lease that runs, and the verdict: the client may talk to the server's port."""
        self.tables.set_state(generation, now_ns() + LEASE_NS)
        self.tables.put_verdict(self.client_id, self.server_id, PORT, generation)

    def dial(self, target: Address = (SERVER4, PORT), *, mapped: bool = False) -> socket.socket:
        host = f"::ffff:{target[0]}" if mapped else target[0]
        return self.client.dial((host, target[1]))

    def assert_direct(self, target: Address = (SERVER4, PORT), **how: bool) -> None:
        with self.dial(target, **how) as dialled, self.app.accept()[0] as accepted:
            assert plain(accepted.getpeername()[0]) in (CLIENT4, CLIENT6)
            assert plain(dialled.getpeername()[0]) == target[0]
            assert dialled.getpeername()[1] == target[1]
            dialled.sendall(b"to")
            assert accepted.recv(8) == b"to"
            accepted.sendall(b"back")
            assert dialled.recv(8) == b"back"

    def assert_captured(self, target: Address = (SERVER4, PORT), **how: bool) -> int:
        """It met the ztunnel's outbound listener; the hint that came along."""
        with self.dial(target, **how) as dialled, self.at_client.outbound.accept()[0] as accepted:
            found, hint = destination_and_hint(accepted)
            assert found == target
            assert plain(dialled.getpeername()[0]) == target[0]
        return hint

    def counter(self, name: str) -> int:
        return self.bed.node.counters()[name]

    def used(self, name: str) -> int:
        return {use.name: use.used for use in self.bed.node.usage()}[name]

    def next_flow(self) -> FlowReport:
        def arrived() -> bool:
            self.flows += self.tables.read_flows(100)
            return bool(self.flows)

        eventually(arrived, "a flow report")
        return self.flows.pop(0)

    def next_record(self) -> bytes:
        """The next report as the kernel wrote it."""
        with self.map("flows") as opened:
            ring = Ring(opened)
            found: list[bytes] = []

            def arrived() -> bool:
                found.extend(ring.read(1))
                return bool(found)

            eventually(arrived, "a record")
            ring.close()
        return found[0]

    def map(self, name: str) -> Map:
        """A table of the node, opened once more."""
        return Map.open(versions(self.bed.pin_root)[0].maps / name)

    def drop_verdict(self) -> None:
        """The client may not talk to the server's port any more."""
        with self.map("verdicts") as verdicts:
            assert verdicts.delete(bytes(verdict_key(self.client_id, self.server_id, PORT)))

    def no_more_flows(self) -> bool:
        return not self.flows and not self.tables.read_flows(1)


def plain(host: str) -> str:
    return host.removeprefix("::ffff:") if "." in host else host


def destination_and_hint(accepted: socket.socket) -> tuple[Address, int]:
    try:
        raw = accepted.getsockopt(SOL_IP, 80, 16)
        address, hint = socket.inet_ntop(socket.AF_INET, raw[4:8]), raw[8]
        assert raw[9:] == bytes(7)
    except OSError:
        raw = accepted.getsockopt(SOL_IPV6, 80, 28)
        address, hint = socket.inet_ntop(socket.AF_INET6, raw[8:24]), raw[7]
        assert raw[4:7] == bytes(3)
    return (address, int.from_bytes(raw[2:4], "big")), hint


@contextlib.contextmanager
def direct_bed(*, direct: bool = True, prefix: str = "tk") -> Iterator[DirectBed]:
    with node_bed() as bed, Network(prefix) as network:
        client = network.pod("client", CLIENT4, CLIENT6)
        server = network.pod("server", SERVER4, SERVER6)
        at_client = bed.capture(client, "uid-client", direct=direct)
        at_server = bed.capture(server, "uid-server", direct=direct)
        with server.listen("::", PORT, dual=True) as app:
            yield DirectBed(bed, network, client, server, at_client, at_server, app)
