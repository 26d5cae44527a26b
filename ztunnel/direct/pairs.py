"""Common part of the kernel's connections between two pods, found once.

A node's short connections come by the thousand, nearly all between the same pods. As long as the
state has not changed, those that differ only in the client's port share the rest: both pods, the
service, the answer of the policies, the counters, and the middle of the log line.
"""

from __future__ import annotations

from typing import Final

from control.model.address import Address, Endpoint
from control.model.workload import HBONE_PORT, Service
from control.wire.direct_flows import OpenedFlow
from ztunnel.connections.engine import Engine
from ztunnel.connections.pod import Pod
from ztunnel.mesh.authorize import Admit, Refusal, admit_connect
from ztunnel.mesh.roles import Accepted, Asked
from ztunnel.mesh.state import State
from ztunnel.telemetry.parties import Memo, Parties, Reporter

# Pairs of pods and ports in use on one node. Beyond this they are found anew.
PAIRS_MAX: Final = 1024

# Source pod, destination pod, client's address, target, what the client dialled. Flat, as the hash
# of an `Endpoint` costs more than all of it.
Key = tuple[str, str, Address, Address, int, Address, int]


def key_of(flow: OpenedFlow) -> Key:
    target, original = flow.target, flow.original
    ends = target.address, target.port, original.address, original.port
    return (flow.source, flow.destination, flow.client.address, *ends)


class PodPair:
    """Everything that its connections share. Valid for one generation of the state."""

    __slots__ = (
        "_answer",
        "_asked",
        "_memos",
        "client",
        "destination",
        "server",
        "service",
        "source",
    )

    def __init__(self, state: State, flow: OpenedFlow, source: Pod, destination: Pod) -> None:
        self.source = source
        self.destination = destination
        self.client = source.workload(state)
        self.server = destination.workload(state)
        self.service: Service | None = None
        if self.client is not None and flow.original != flow.target:
            network, namespace = self.client.network, self.client.namespace
            asked = flow.original
            self.service = state.service_at(network, asked.address, namespace, asked.port)
        self._asked = False
        self._answer: Admit | Refusal | None = None
        self._memos = {Reporter.SOURCE.value: Memo(), Reporter.DESTINATION.value: Memo()}

    def ask(self, state: State, flow: OpenedFlow) -> Admit | Refusal | None:
        """Answer that the tunnel would get. None: one of the two pods is being deleted."""
        if not self._asked and self.client is not None and self.server is not None:
            accepted = Accepted(Endpoint(flow.target.address, HBONE_PORT))
            authority, address = str(flow.target), flow.client.address
            self._answer = admit_connect(
                state, self.server, accepted, authority, self.client.identity, address
            )
            self._asked = True
        return self._answer

    def parties(self, flow: OpenedFlow, reporter: Reporter) -> Parties:
        client, server = self.client, self.server
        return Parties(
            reporter,
            flow.client,
            flow.target,
            source=client,
            destination=server,
            service=self.service,
            source_identity=None if client is None else client.identity,
            destination_identity=None if server is None else server.identity,
            original=Asked(flow.original),
            direct=True,
            tenant=self.source.tenant,
            memo=self._memos[reporter.value],
        )


class PodPairs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._generation = -1
        self._known: dict[Key, PodPair] = {}

    def of(self, flow: OpenedFlow) -> PodPair | None:
        """Pair of this flow. None: one of its pods is not ours, or no longer."""
        pods, state = self._engine.pods, self._engine.state
        source, destination = pods.get(flow.source), pods.get(flow.destination)
        if source is None or destination is None:
            return None
        if self._generation != state.generation or len(self._known) >= PAIRS_MAX:
            self._known.clear()
            self._generation = state.generation
        key = key_of(flow)
        pair = self._known.get(key)
        if pair is None or pair.source is not source or pair.destination is not destination:
            pair = self._known[key] = PodPair(state, flow, source, destination)
        return pair
