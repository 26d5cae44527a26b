"""The mesh as this node knows it: workloads, services, policies, by every key of a look-up.

Messages are indexed from a light decode when they arrive (about 10 µs each) and become model values
when first used. A message that cannot be understood never replaces the last good one; a policy that
cannot be understood and has no good version denies everything it could apply to. No I/O.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeAlias, TypeVar

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.address import Address
from control.model.policy import Policy
from control.model.workload import NetworkMode, Service, Workload
from control.wire import workload_pb2
from control.wire.convert import resource_from_wire
from ztunnel.mesh.entries import Entry, Op
from ztunnel.mesh.groups import Group
from ztunnel.mesh.policies import PolicyBook
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
    """`policies`: the policies of some workload may differ now, so open connections need a look.
    `moved`: workloads and services that have gone, and workloads that no longer have an address
    that they had."""

    policies: bool = False
    addresses: bool = False
    moved: tuple[str, ...] = ()


class _Table(Generic[_Value]):
    """Messages as they came, and decoded values of those in use.

    Two dictionaries instead of one of records: bytes are invisible to the garbage collector, and it
    need not look through a mesh of 10,000 workloads.
    """

    def __init__(self, kind: type[_Value]) -> None:
        self._kind = kind
        self.raw: dict[str, bytes] = {}
        self._values: dict[str, _Value] = {}

    def put(self, name: str, raw: bytes) -> None:
        self.raw[name] = raw
        self._values.pop(name, None)

    def pop(self, name: str) -> bytes | None:
        self._values.pop(name, None)
        return self.raw.pop(name, None)

    def value(self, name: str) -> _Value | None:
        """The decoded value, None without a message; WireError when it cannot be understood."""
        value = self._values.get(name)
        if value is None and (raw := self.raw.get(name)) is not None:
            value = self._values[name] = self._decoded(raw)
        return value

    def each(self) -> Iterator[_Value]:
        """Yield every value, decoded one by one and not kept: for pages, not for connections."""
        for name, raw in list(self.raw.items()):
            value = self._values.get(name)
            try:
                yield value if value is not None else self._decoded(raw)
            except WireError:
                pass  # its first use finds that out, and drops it

    def _decoded(self, raw: bytes) -> _Value:
        try:
            value = resource_from_wire(workload_pb2.Address.FromString(raw))
        except DecodeError as exc:
            raise WireError(str(exc)) from exc
        if not isinstance(value, self._kind):
            raise WireError(f"not a {self._kind.__name__}")
        return value


class State:
    """`strict` decodes everything at once, so that `take_rejected()` is complete: the supervisor
    answers the control plane from it. Workers only ever see what the supervisor accepted.

    `synced` says that a whole snapshot has been applied. Before that nothing may be decided from
    it: an unknown address would look like one outside the mesh.
    """

    def __init__(self, *, cluster_id: str = "", node: str = "", strict: bool = False) -> None:
        self.generation = 0
        self.synced = False
        self._cluster_id = cluster_id
        self._node = node
        self._strict = strict
        self._workloads = _Table(Workload)
        self._services = _Table(Service)
        self._policies = PolicyBook()
        self._index = WorkloadIndex()
        self._vips = VipIndex()
        self._rejected: dict[str, str] = {}
        self._editions: dict[str, object] = {}  # by service
        self._remembered: dict[Hashable, dict[Question, object]] = {}  # by service

    # Changes

    def apply(self, entries: Iterable[Entry]) -> Changed:
        """Take over one chunk. Bad entries end up in `take_rejected()`, good ones are in force."""
        policies = addresses = False
        moved: list[str] = []
        for entry in entries:
            match entry.op:
                case Op.ADDRESS | Op.REMOVE_ADDRESS:
                    if entry.op is Op.ADDRESS:
                        changed = self._put_address(entry.name, entry.body)
                    else:
                        changed = self._drop_address(entry.name)
                    addresses = addresses or changed.addresses
                    policies = policies or changed.policies
                    moved += changed.moved
                case Op.POLICY:
                    policies = self._put_policy(entry.name, entry.body) or policies
                case Op.REJECTED_POLICY:
                    policies = self._policies.deny_instead(entry.name, entry.body) or policies
                case Op.REMOVE_POLICY:
                    policies = self._policies.drop(entry.name) or policies
                case Op.SNAPSHOT:
                    policies = policies or not self.synced
                    self.synced = True
        if policies or addresses:
            self.generation += 1
        return Changed(policies, addresses, tuple(moved))

    def take_rejected(self) -> dict[str, str]:
        """Rejected resources since the last call: name → reason."""
        taken, self._rejected = self._rejected, {}
        return taken

    def _put_address(self, name: str, raw: bytes) -> Changed:
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
            return Changed()

    def _put_workload(self, name: str, raw: bytes, message: workload_pb2.Workload) -> Changed:
        if message.uid != name:
            raise WireError(f"a workload with the uid {message.uid!r}")
        keys = keys_of(message)
        before = self._keys_held(name)
        if before is not None:
            self._forget_answers(before.groups)
            if before != keys:
                self._index.drop(name, before)
        self._workloads.put(name, raw)
        self._index.put(name, keys)
        self._forget_answers(keys.groups)
        if before is None:
            return Changed(addresses=True)
        others = (before.policies, before.namespace) != (keys.policies, keys.namespace)
        return Changed(others, addresses=True, moved=() if keys.cover(before) else (name,))

    def _put_service(self, name: str, raw: bytes, message: workload_pb2.Service) -> Changed:
        if f"{message.namespace}/{message.hostname}" != name:
            raise WireError(f"a service named {message.namespace}/{message.hostname}")
        self._vips.put(name, message)
        self._services.put(name, raw)
        self._remembered.pop(name, None)
        return Changed(addresses=True)

    def _drop_address(self, name: str) -> Changed:
        if self._services.pop(name) is not None:
            self._vips.drop(name)
            self._remembered.pop(name, None)
            return Changed(addresses=True, moved=(name,))
        keys = self._keys_held(name)
        if keys is None:
            return Changed()
        self._workloads.pop(name)
        self._index.drop(name, keys)
        self._forget_answers(keys.groups)
        return Changed(addresses=True, moved=(name,))

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
            self._policies.put(name, raw)
        except WireError as exc:
            self._rejected[name] = str(exc)
            return self._policies.deny_instead(name, raw)
        return True

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
        """Owner of an address. None when several pods share it, as on the host's own address.

        While an address changes hands two pods may claim it; the one heard of last has it.
        """
        shared = 0
        found: Workload | None = None
        for uid in reversed(self._index.at(network, address)):
            workload = self.workload(uid)
            if workload is None:
                continue
            if workload.network_mode is NetworkMode.STANDARD:
                return workload
            shared += 1
            found = workload
        return found if shared == 1 else None

    def local_workload(self, namespace: str, name: str, service_account: str) -> Workload | None:
        """The workload that a pod's claim (ZDS) names; that of our cluster, if others have its
        like."""
        asked = (namespace, name, service_account)
        found = [
            each
            for uid in self._index.claimed(claim(*asked))
            if (each := self.workload(uid)) is not None
            and (each.namespace, each.name, each.service_account) == asked
        ]
        if not found:
            return None
        return max(
            found, key=lambda each: (each.node == self._node, each.cluster_id == self._cluster_id)
        )

    def service_at(self, network: str, address: Address, client_namespace: str) -> Service | None:
        """The service with this VIP, as a client in that namespace sees it."""
        key = self._vips.at(network, address, client_namespace)
        return None if key is None else self.service(key)

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

    def policies_for(self, workload: Workload) -> tuple[Policy, ...]:
        """Policies for connections to this workload, as `decide()` needs them."""
        return self._policies.applicable(workload.namespace, workload.authorization_policies)

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
        """Entries that bring an empty state to this one, for a worker that has just started."""
        yield from self._policies.entries()
        for table in (self._services, self._workloads):
            for name, raw in table.raw.items():
                yield Entry(Op.ADDRESS, name, raw)
        if self.synced:
            yield Entry(Op.SNAPSHOT)

    def counts(self) -> dict[str, int]:
        return {
            "workloads": len(self._workloads.raw),
            "services": len(self._services.raw),
            "policies": len(self._policies),
        }

    def _value(self, table: _Table[_Value], name: str) -> _Value | None:
        try:
            return table.value(name)
        except WireError:
            self._rejected[name] = "cannot be understood"
            self._drop_address(name)
            return None
