"""Planted faults on the way from the manifests to the node, each of which the fuzzer has to see."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from control.wire import security_pb2
from tests.fuzz.policy_chain import Chain, Node
from tests.fuzz.policy_contents import Options
from ztunnel.mesh.entries import Entry, Op


class LosesRemovals(Node):
    def to_worker(self, entries: Iterable[Entry]) -> None:
        gone = (Op.REMOVE_POLICY, Op.REMOVE_ADDRESS)
        super().to_worker([each for each in entries if each.op not in gone])


class LosesChangesOfWorkloads(Node):
    def to_worker(self, entries: Iterable[Entry]) -> None:
        known = self.worker.workload
        super().to_worker(
            [each for each in entries if each.op is not Op.ADDRESS or known(each.name) is None]
        )


class KeepsRefusalsFromWorkers(Node):
    def to_worker(self, entries: Iterable[Entry]) -> None:
        super().to_worker([each for each in entries if each.op is not Op.REJECTED_POLICY])


class TakesHalvesForWholes(Node):
    """Forgets the past after each entry."""

    def to_worker(self, entries: Iterable[Entry]) -> None:
        look, self.look = self.look, None
        for entry in entries:
            super().to_worker([entry])
            if self.worker.synced:
                self.worker.apply([Entry(Op.SNAPSHOT)])
            if look is not None:
                look()
        self.look = look


class OnTheWire(Node):
    """Changes every policy that arrives."""

    def on_the_wire(self, name: str, raw: bytes) -> bytes:
        policy = security_pb2.Authorization.FromString(super().on_the_wire(name, raw))
        self.change(policy)
        return policy.SerializeToString()

    def change(self, policy: security_pb2.Authorization) -> None:
        raise NotImplementedError

    def matches(self, policy: security_pb2.Authorization) -> Iterator[security_pb2.Match]:
        for rule in policy.rules:
            for clause in rule.clauses:
                yield from clause.matches


class DropsUnknownFields(OnTheWire):
    def change(self, policy: security_pb2.Authorization) -> None:
        policy.DiscardUnknownFields()


class LosesNegativePorts(OnTheWire):
    def change(self, policy: security_pb2.Authorization) -> None:
        for match in self.matches(policy):
            del match.not_destination_ports[:]


class CutsLongPrefixes(OnTheWire):
    def change(self, policy: security_pb2.Authorization) -> None:
        for match in self.matches(policy):
            for block in match.source_ips:
                block.length = min(block.length, 31)


class MovesToTheNamespace(OnTheWire):
    def change(self, policy: security_pb2.Authorization) -> None:
        if policy.scope == security_pb2.GLOBAL:
            policy.scope = security_pb2.NAMESPACE


NODE_FAULTS: tuple[type[Node], ...] = tuple(
    each
    for each in globals().values()
    if isinstance(each, type)
    and issubclass(each, Node)
    and each not in (Node, OnTheWire, TakesHalvesForWholes)
)


def chain_with(node: type[Node]) -> Callable[[Options], Chain]:
    """A chain whose only node, the one that is asked, has a fault."""
    return lambda options: Chain(options, node)
