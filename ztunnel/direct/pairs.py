"""What the kernel's connections between two pods have in common, found once.

A node's short connections come by the thousand, nearly all between the same pods. Who they are, the
service, the answer of the policies, their counters and the middle of their log lines are the same
for all that differ in nothing but the client's port, as long as nothing in the state has changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

from control.model.address import Endpoint, parse_endpoint
from control.model.workload import HBONE_PORT, Service
from ztunnel.connections.engine import Engine
from ztunnel.connections.pod import Pod
from ztunnel.mesh.authorize import Admit, Refusal, admit_connect
from ztunnel.mesh.state import State
from ztunnel.telemetry.parties import Memo, Parties, Reporter

# Pairs of pods and ports in use on one node, and texts of addresses; beyond, found anew.
PAIRS_MAX: Final = 1024
ENDPOINTS_MAX: Final = 1024

# Source pod, destination pod, client's host, target, what the client dialled.
Key = tuple[str, str, str, str, str]

# Where apps listen on this node: the same few again and again. Clients' ports differ each time.
_endpoint = lru_cache(maxsize=ENDPOINTS_MAX)(parse_endpoint)


@dataclass(frozen=True, slots=True)
class Told:
    """One flow in the agent's words, checked."""

    id: int
    key: Key
    client: Endpoint
    target: Endpoint
    original: Endpoint
    age_s: float

    @classmethod
    def parse(cls, value: dict[str, Any]) -> Told:
        """ValueError, KeyError, TypeError: it is not one."""
        target = str(value["target"])
        original = str(value.get("original") or target)
        host, _, port = str(value["client"]).rpartition(":")
        return cls(
            int(value["id"]),
            (str(value["source"]), str(value["destination"]), host, target, original),
            Endpoint(_endpoint(f"{host}:1").address, _port(port)),
            _endpoint(target),
            _endpoint(original),
            max(0.0, float(value.get("age_s", 0.0))),
        )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 65536):
        raise ValueError(f"not a port: {text!r}")
    return int(text)


class Pair:
    """Good for one generation of the state."""

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

    def __init__(self, state: State, told: Told, source: Pod, destination: Pod) -> None:
        self.source = source
        self.destination = destination
        self.client = source.workload(state)
        self.server = destination.workload(state)
        self.service: Service | None = None
        if self.client is not None and told.original != told.target:
            network, namespace = self.client.network, self.client.namespace
            self.service = state.service_at(network, told.original.address, namespace)
        self._asked = False
        self._answer: Admit | Refusal | None = None
        self._memos = {Reporter.SOURCE.value: Memo(), Reporter.DESTINATION.value: Memo()}

    def ask(self, state: State, told: Told) -> Admit | Refusal | None:
        """The question that the tunnel would be asked. None: one of the two is being deleted."""
        if not self._asked and self.client is not None and self.server is not None:
            accepted = Endpoint(told.target.address, HBONE_PORT)
            authority, address = str(told.target), told.client.address
            self._answer = admit_connect(
                state, self.server, accepted, authority, self.client.identity, address
            )
            self._asked = True
        return self._answer

    def parties(self, told: Told, reporter: Reporter) -> Parties:
        client, server = self.client, self.server
        return Parties(
            reporter,
            told.client,
            told.target,
            source=client,
            destination=server,
            service=self.service,
            source_identity=None if client is None else client.identity,
            destination_identity=None if server is None else server.identity,
            original=told.original,
            direct=True,
            memo=self._memos[reporter.value],
        )


class Pairs:
    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._generation = -1
        self._known: dict[Key, Pair] = {}

    def of(self, told: Told) -> Pair | None:
        """None: a pod that is not ours (any more)."""
        pods, state = self._engine.pods, self._engine.state
        source, destination = pods.get(told.key[0]), pods.get(told.key[1])
        if source is None or destination is None:
            return None
        if self._generation != state.generation or len(self._known) >= PAIRS_MAX:
            self._known.clear()
            self._generation = state.generation
        pair = self._known.get(told.key)
        if pair is None or pair.source is not source or pair.destination is not destination:
            pair = self._known[told.key] = Pair(state, told, source, destination)
        return pair
