"""The mesh as this node knows it: workloads, services, policies, by every key of a look-up.

Messages are indexed from a light decode when they arrive (about 10 µs each) and become model values
when first used. A message that cannot be understood never replaces the last good one; a policy that
cannot be understood and has no good version denies everything it could apply to. No I/O.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.address import Address
from control.model.policy import Policy
from control.model.workload import NetworkMode, Service, Workload
from control.wire import workload_pb2
from control.wire.convert import resource_from_wire
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.groups import Group
from ztunnel.mesh.in_force import InForce
from ztunnel.mesh.known import KnownNames
from ztunnel.mesh.owners import is_local_pod, local_pod, owner
from ztunnel.mesh.past import Past
from ztunnel.mesh.policies import PolicyBook
from ztunnel.mesh.table import Table
from ztunnel.mesh.vips import VipIndex
from ztunnel.mesh.workloads import WorkloadIndex, WorkloadKeys, claim, keys_of

# Remembered answers: services in use on a node, and the ports and families of one; beyond either
# they are found anew.
SERVICES_REMEMBERED_MAX = 1024
ANSWERS_PER_SERVICE_MAX = 64

# A question about a service: its key comes first.
Question: TypeAlias = tuple[Hashable, ...]

_Value = TypeVar("_Value", bound=Workload | Service)


@dataclass(frozen=True, slots=True)
class Changed:
    """`policies`: those of any workload may differ now, so open connections need a look. `claims`:
    only those of pods with these (`workloads.claim`): one came, went, or means something else.
    `moved`: workloads and services that have gone, and workloads that no longer have an address
    that they had."""

    policies: bool = False
    addresses: bool = False
    claims: frozenset[int] = frozenset()
    moved: tuple[str, ...] = ()


class State:
    """`strict` decodes everything at once, so that `take_rejected()` is complete: the supervisor
    answers the control plane from it. It routes nothing, so it finds workloads by uid and claim
    alone. Workers only ever see what the supervisor accepted.

    `synced` says that a whole snapshot has been applied. Before that nothing may be decided from
    it: an unknown address would look like one outside the mesh.

    A policy and the workloads that name it come apart, in any order. So from a change until the
    next SNAPSHOT the policies of before are kept (past.py), and `before()` answers from them: what
    was refused then stays refused, and half of an update lets in nobody that both the old and the
    new state refuse.
    """

    def __init__(self, *, cluster_id: str = "", node: str = "", strict: bool = False) -> None:
        self.generation = 0
        self.synced = False
        self.known = KnownNames()
        self._cluster_id = cluster_id
        self._node = node
        self._strict = strict
        self._workloads = Table(Workload)
        self._services = Table(Service)
        self._policies = PolicyBook()
        self._past: Past[bytes] = Past()  # workloads that went or mean something else
        self._claims: set[int] = set()  # those that the present chunk touches
        self._moved: list[str] = []
        self._index = WorkloadIndex(claims_only=strict)
        self._vips = VipIndex()
        self._rejected: dict[str, str] = {}
        self._editions: dict[str, object] = {}  # by service
        self._remembered: dict[Hashable, dict[Question, object]] = {}  # by service

    # Changes

    def apply(self, entries: Iterable[Entry]) -> Changed:
        """Take over one chunk. Bad entries end up in `take_rejected()`, good ones are in force."""
        policies = addresses = False
        self._claims.clear()
        self._moved.clear()
        for entry in entries:
            match entry.op:
                case Op.ADDRESS | Op.NEW_SERVICE:
                    addresses = self._put_address(entry.name, entry.body) or addresses
                case Op.REMOVE_ADDRESS:
                    addresses = self._drop_address(entry.name) or addresses
                case Op.POLICY:
                    policies = self._put_policy(entry.name, entry.body) or policies
                case Op.REJECTED_POLICY:
                    policies = self._policies.deny_instead(entry.name, entry.body) or policies
                case Op.REMOVE_POLICY:
                    policies = self._policies.drop(entry.name) or policies
                case Op.SNAPSHOT:
                    policies = self._settle() or policies
                case Op.LATER:
                    policies = self._move_on() or policies
                case _:
                    addresses = self.known.apply(entry) or addresses
        if policies or addresses:
            self.generation += 1
        return Changed(policies, addresses, frozenset(self._claims), tuple(self._moved))

    def _settle(self) -> bool:
        """Take what is held for the truth. True if open connections need a look."""
        first, self.synced = not self.synced, True
        self._past.settle()
        self.generation += 1  # a no from before may be a yes
        return self._policies.settle() or first

    def _move_on(self) -> bool:
        self._past.move_on()
        self.generation += 1
        return self._policies.move_on()

    def take_rejected(self) -> dict[str, str]:
        """Rejected resources since the last call: name → reason."""
        taken, self._rejected = self._rejected, {}
        return taken

    def _put_address(self, name: str, raw: bytes) -> bool:
        try:
            message = workload_pb2.Address.FromString(raw)
            if self._strict:
                resource_from_wire(message)
            match message.WhichOneof("type"):
                case "workload":
                    return self._put_workload(name, raw, message.workload)
                case "service":
                    return self._put_service(name, raw, message.service)
                case _:
                    raise WireError("neither workload nor service")
        except (DecodeError, WireError) as exc:
            self._rejected[name] = str(exc)
            return False

    def _put_workload(self, name: str, raw: bytes, message: workload_pb2.Workload) -> bool:
        if message.uid != name:
            raise WireError(f"a workload with the uid {message.uid!r}")
        keys = keys_of(message)
        before = self._keys_held(name)
        if before is not None:
            self._forget_answers(before.groups)
            if before != keys:
                self._index.drop(name, before)
            if not before.means_the_same(keys):
                self._note(name, before)
        if before is None or not before.means_the_same(keys):
            self._claims.add(keys.claim)
        self._workloads.put(name, raw)
        self._index.put(name, keys)
        self._forget_answers(keys.groups)
        if before is not None and not keys.cover(before):
            self._moved.append(name)
        return True

    def _note(self, name: str, keys: WorkloadKeys) -> None:
        self._claims.add(keys.claim)
        if self.synced:
            self._past.note(name, self._workloads.raw[name])

    def _put_service(self, name: str, raw: bytes, message: workload_pb2.Service) -> bool:
        if f"{message.namespace}/{message.hostname}" != name:
            raise WireError(f"a service named {message.namespace}/{message.hostname}")
        self._vips.put(name, message)
        self._services.put(name, raw)
        self._remembered.pop(name, None)
        return True

    def _drop_address(self, name: str) -> bool:
        if self._services.pop(name) is not None:
            self._vips.drop(name)
            self._remembered.pop(name, None)
            self._moved.append(name)
            return True
        keys = self._keys_held(name)
        if keys is None:
            return False
        self._note(name, keys)
        self._workloads.pop(name)
        self._index.drop(name, keys)
        self._forget_answers(keys.groups)
        self._moved.append(name)
        return True

    def _keys_held(self, name: str) -> WorkloadKeys | None:
        """Keys of a workload that is held; decoded once more rather than kept, as they are as
        large as the message."""
        raw = self._workloads.raw.get(name)
        return None if raw is None else keys_of(workload_pb2.Address.FromString(raw).workload)

    def _forget_answers(self, services: Iterable[str]) -> None:
        for service in services:
            self._editions.pop(service, None)
            self._remembered.pop(service, None)

    def _put_policy(self, name: str, raw: bytes) -> bool:
        try:
            return self._policies.put(name, raw)
        except WireError as exc:
            self._rejected[name] = str(exc)
            return self._policies.deny_instead(name, raw)

    # Questions

    def workload(self, uid: str) -> Workload | None:
        return self._value(self._workloads, uid)

    def service(self, key: str) -> Service | None:
        return self._value(self._services, key)

    def has(self, name: str) -> bool:
        """True for the uid of a workload and the key of a service that are in the mesh."""
        return name in self._workloads.raw or name in self._services.raw

    def policy(self, key: str) -> Policy | None:
        return self._policies.get(key)

    def workload_at(self, network: str, address: Address) -> Workload | None:
        """Owner of an address, by the rule of `owners`."""
        uids = self._index.at(network, address)
        if len(uids) == 1:
            return self.workload(uids[0])
        claimants = (self.workload(uid) for uid in reversed(uids))
        return owner((each for each in claimants if each is not None), self._node)

    def is_local(self, network: str, address: Address) -> bool:
        """True for an address of a pod of this node, which nobody else can have."""
        workload = self.workload_at(network, address) if self._index.at(network, address) else None
        return workload is not None and is_local_pod(workload, self._node)

    def local_workload(self, namespace: str, name: str, service_account: str) -> Workload | None:
        """The workload that a pod's claim (ZDS) names; that of our cluster, if others have its
        like."""
        asked = (namespace, name, service_account)
        found = (
            each
            for uid in self._index.claimed(claim(*asked))
            if (each := self.workload(uid)) is not None
            and (each.namespace, each.name, each.service_account) == asked
        )
        return local_pod(found, self._node, self._cluster_id)

    def service_at(
        self, network: str, address: Address, client_namespace: str, port: int = 0
    ) -> Service | None:
        """The service that this address and port lead to, as a client in that namespace sees it:
        one with this VIP, else one with this outer address. A local pod's address is no VIP, and
        no address of a workload's own is an outer one. Port 0 asks for the VIP alone."""
        key = self._vips.at(network, address, client_namespace, port)
        if key is not None:
            return None if self.is_local(network, address) else self.service(key)
        key = self._vips.outer(network, address, client_namespace, port)
        if key is None or self._is_a_pods(network, address):
            return None
        return self.service(key)

    def _is_a_pods(self, network: str, address: Address) -> bool:
        """True for a workload's own address. A host's is shared by all on its network, and a port
        of it may lead to a pod, as the host itself has it do."""
        if not self._index.at(network, address):
            return False
        workload = self.workload_at(network, address)
        return workload is not None and workload.network_mode is not NetworkMode.HOST_NETWORK

    def service_named(self, hostname: str, client_namespace: str) -> Service | None:
        key = self._vips.named(hostname, client_namespace)
        return None if key is None else self.service(key)

    def endpoints(self, service_key: str) -> Iterable[tuple[Group, tuple[str, ...]]]:
        """The uid of every workload of the service, healthy or not; those that are alike together.
        Decodes none."""
        return self._index.members(service_key)

    def edition(self, service_key: str) -> object:
        """Another object whenever the service's endpoints have changed."""
        return self._editions.setdefault(service_key, object())

    @property
    def unknown_policies(self) -> int:
        """Number of references to names that have not been sent (yet)."""
        return self._policies.unknown

    def in_force(self, workload: Workload) -> InForce:
        """Policies for connections to this workload."""
        return self._policies.in_force(workload.namespace, workload.authorization_policies)

    def policies_for(self, workload: Workload) -> tuple[Policy, ...]:
        """All of them, for more than a verdict."""
        return self._policies.policies(workload.namespace, workload.authorization_policies)

    def missing_policies(self, workload: Workload) -> tuple[str, ...]:
        """Names that it gives and nobody has sent."""
        return self.in_force(workload).missing

    @property
    def settled(self) -> bool:
        """False while an update may be half here: then `before()` has a say as well."""
        return not self._policies.past and not self._past

    def before(self, workload: Workload) -> InForce:
        """Policies that its connections had to pass when the mesh was last settled."""
        namespace, named = workload.namespace, workload.authorization_policies
        raw = self._past.was(workload.uid, None)
        if raw is not None:
            message = workload_pb2.Address.FromString(raw).workload
            namespace, named = message.namespace, tuple(message.authorization_policies)
        return self._policies.before(namespace, named)

    def may_still_come(self, missing: tuple[str, ...]) -> bool:
        """True if open connections need not be cut yet for want of these policies."""
        return not self.settled and self._policies.is_awaited(missing)

    def recall(self, question: Question) -> object | None:
        """The value given to `remember()`, as long as neither the service nor an endpoint of it
        has changed."""
        answers = self._remembered.get(question[0])
        return None if answers is None else answers.get(question)

    def remember(self, question: Question, answer: object) -> None:
        if len(self._remembered) >= SERVICES_REMEMBERED_MAX:
            self._remembered.clear()
        answers = self._remembered.setdefault(question[0], {})
        if len(answers) >= ANSWERS_PER_SERVICE_MAX:
            answers.clear()
        answers[question] = answer

    # Wholes

    def workloads(self) -> Iterator[Workload]:
        return self._workloads.each()

    def services(self) -> Iterator[Service]:
        return self._services.each()

    def policies(self) -> Iterator[Policy]:
        return self._policies.all()

    def snapshot(self) -> Iterator[Entry]:
        """Entries that bring an empty state to this one, for a worker that has just started. It
        has to know how it was when it was last settled, and what has come since."""
        yield from self.known.entries()
        yield from self._policies.entries_before()
        for name, raw in self._services.raw.items():
            yield Entry(Op.ADDRESS, name, raw)
        workloads = self._workloads.raw
        changed = list(self._past.names())
        for name in dict.fromkeys((*workloads, *changed)):
            before = self._past.was(name, workloads.get(name))
            if before is not None:
                yield Entry(Op.ADDRESS, name, before)
        if self.synced:
            yield Entry(Op.SNAPSHOT)
        yield from self._policies.entries_since()
        for name in changed:
            now = workloads.get(name)
            yield Entry(Op.REMOVE_ADDRESS, name) if now is None else Entry(Op.ADDRESS, name, now)

    def counts(self) -> dict[str, int]:
        return {
            "workloads": len(self._workloads.raw),
            "services": len(self._services.raw),
            "policies": len(self._policies),
        }

    def _value(self, table: Table[_Value], name: str) -> _Value | None:
        try:
            return table.value(name)
        except WireError:
            self._rejected[name] = "cannot be understood"
            self._drop_address(name)
            return None
