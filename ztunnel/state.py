"""What this node knows of the mesh: workloads, services, policies, by every key used to find them.

Messages are indexed from a light decode when they arrive (about 10 µs each, so one chunk of
`resources.py` costs a worker one or two milliseconds) and become model values when first used. A
message that cannot be understood never replaces the last good one; a policy that cannot be
understood and has no good version denies everything it could apply to. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.address import Address
from control.model.policy import Action, Policy, PolicyScope, Rule
from control.model.workload import NetworkMode, Service, Workload
from control.wire import security_pb2, workload_pb2
from control.wire.convert import address_from_wire, resource_from_wire
from control.wire.convert_policy import policy_from_wire
from ztunnel.resources import Entry, Op
from ztunnel.vips import VipIndex

# Remembered answers: services times ports in use on a node; beyond, all are found anew.
REMEMBERED_MAX = 4096

_Value = TypeVar("_Value")
_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class Changed:
    """`policies`: what applies to some workload may differ now, so open connections need a look."""

    policies: bool = False
    addresses: bool = False


@dataclass(slots=True)
class _Held(Generic[_Value]):
    """A message as it came, and its value once somebody asked for it."""

    raw: bytes
    value: _Value | None = None


@dataclass(frozen=True, slots=True)
class _WorkloadKeys:
    """What a workload is found by."""

    at: tuple[tuple[str, Address], ...]
    local: tuple[str, str, str]
    services: tuple[str, ...]
    policies: tuple[str, ...]


@dataclass(slots=True)
class _Policies:
    """Keys of the held policies by scope, and the answers computed from them."""

    everywhere: dict[str, None] = field(default_factory=dict)
    by_namespace: dict[str, dict[str, None]] = field(default_factory=dict)
    answers: dict[tuple[str, tuple[str, ...]], tuple[Policy, ...]] = field(default_factory=dict)


class State:
    """`strict` decodes everything at once, so that `take_rejected()` is complete: the supervisor
    answers the control plane from it. Workers only ever see what the supervisor accepted.

    `synced` says that a whole snapshot has been applied. Before that nothing may be decided from
    it: an unknown address would look like one outside the mesh.
    """

    def __init__(self, *, cluster_id: str = "", node: str = "", strict: bool = False) -> None:
        self.generation = 0
        self.synced = False
        self.unknown_policies = 0  # references to names nobody has sent (yet)
        self._cluster_id = cluster_id
        self._node = node
        self._strict = strict
        self._workloads: dict[str, _Held[Workload]] = {}
        self._services: dict[str, _Held[Service]] = {}
        self._held_policies: dict[str, _Held[Policy]] = {}
        self._substitutes: set[str] = set()  # names of policies held only as "deny all"
        self._rejected: dict[str, str] = {}
        self._by_address: dict[tuple[str, Address], dict[str, None]] = {}
        self._by_local: dict[tuple[str, str, str], dict[str, None]] = {}
        self._by_service: dict[str, dict[str, None]] = {}
        self._endpoints: dict[str, tuple[Workload, ...]] = {}
        self._remembered: dict[Hashable, object] = {}
        self._vips = VipIndex()
        self._policies = _Policies()

    # Changes

    def apply(self, entries: Iterable[Entry]) -> Changed:
        """Take over one chunk. Bad entries end up in `take_rejected()`, good ones are in force."""
        policies = addresses = False
        for entry in entries:
            match entry.op:
                case Op.ADDRESS:
                    changed = self._put_address(entry.name, entry.body)
                    addresses, policies = (
                        addresses or changed.addresses,
                        policies or changed.policies,
                    )
                case Op.REMOVE_ADDRESS:
                    addresses = self._drop_address(entry.name) or addresses
                case Op.POLICY:
                    policies = self._put_policy(entry.name, entry.body) or policies
                case Op.REJECTED_POLICY:
                    policies = self._deny_instead(entry.name, entry.body) or policies
                case Op.REMOVE_POLICY:
                    policies = self._drop_policy(entry.name) or policies
                case Op.SNAPSHOT:
                    policies = policies or not self.synced
                    self.synced = True
        if policies:
            self._policies.answers.clear()
        if addresses:
            self._remembered.clear()
        if policies or addresses:
            self.generation += 1
        return Changed(policies, addresses)

    def take_rejected(self) -> dict[str, str]:
        """Name → why, since the last call."""
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
        keys = _workload_keys(message)
        before = self._forget_workload(name)
        self._workloads[name] = _Held(raw)
        for at in keys.at:
            self._by_address.setdefault(at, {})[name] = None
        self._by_local.setdefault(keys.local, {})[name] = None
        for service in keys.services:
            self._by_service.setdefault(service, {})[name] = None
            self._endpoints.pop(service, None)
        moved = before is not None and (before.policies, before.local[0]) != (
            keys.policies,
            keys.local[0],
        )
        return Changed(policies=moved, addresses=True)

    def _put_service(self, name: str, raw: bytes, message: workload_pb2.Service) -> Changed:
        if f"{message.namespace}/{message.hostname}" != name:
            raise WireError(f"a service named {message.namespace}/{message.hostname}")
        self._vips.put(name, message)
        self._services[name] = _Held(raw)
        return Changed(addresses=True)

    def _drop_address(self, name: str) -> bool:
        if self._services.pop(name, None) is not None:
            self._vips.drop(name)
            return True
        return self._forget_workload(name) is not None

    def _forget_workload(self, name: str) -> _WorkloadKeys | None:
        held = self._workloads.pop(name, None)
        if held is None:
            return None
        keys = _workload_keys(workload_pb2.Address.FromString(held.raw).workload)
        for at in keys.at:
            _remove(self._by_address, at, name)
        _remove(self._by_local, keys.local, name)
        for service in keys.services:
            _remove(self._by_service, service, name)
            self._endpoints.pop(service, None)
        return keys

    def _put_policy(self, name: str, raw: bytes) -> bool:
        try:
            message = security_pb2.Authorization.FromString(raw)
            if f"{message.namespace}/{message.name}" != name:
                raise WireError(f"a policy named {message.namespace}/{message.name}")
            policy = policy_from_wire(message)
        except (DecodeError, WireError) as exc:
            self._rejected[name] = str(exc)
            return self._deny_instead(name, raw)
        self._substitutes.discard(name)
        self._hold_policy(name, raw, policy)
        return True

    def _deny_instead(self, name: str, raw: bytes) -> bool:
        """The last good version stays; without one, everything in the policy's reach is denied."""
        if name in self._held_policies and name not in self._substitutes:
            return False
        policy = deny_all(name, raw)
        if policy is None:
            return self._drop_policy(name)
        self._substitutes.add(name)
        self._hold_policy(name, raw, policy)
        return True

    def _hold_policy(self, name: str, raw: bytes, policy: Policy) -> None:
        self._drop_policy_index(name)
        self._held_policies[name] = _Held(raw, policy)
        if policy.scope is PolicyScope.GLOBAL:
            self._policies.everywhere[name] = None
        elif policy.scope is PolicyScope.NAMESPACE:
            self._policies.by_namespace.setdefault(policy.namespace, {})[name] = None

    def _drop_policy(self, name: str) -> bool:
        if self._held_policies.pop(name, None) is None:
            return False
        self._substitutes.discard(name)
        self._drop_policy_index(name)
        return True

    def _drop_policy_index(self, name: str) -> None:
        self._policies.everywhere.pop(name, None)
        _remove(self._policies.by_namespace, name.partition("/")[0], name)

    # Questions

    def workload(self, uid: str) -> Workload | None:
        return self._value(self._workloads, uid, self._drop_address)

    def service(self, key: str) -> Service | None:
        return self._value(self._services, key, self._drop_address)

    def policy(self, key: str) -> Policy | None:
        held = self._held_policies.get(key)
        return None if held is None else held.value

    def workload_at(self, network: str, address: Address) -> Workload | None:
        """Whose address this is. Several pods on the host's own address: nobody can tell, None.

        While an address changes hands two pods may claim it; the one heard of last has it.
        """
        shared = 0
        found: Workload | None = None
        for uid in reversed(tuple(self._by_address.get((network, address), ()))):
            workload = self.workload(uid)
            if workload is None:
                continue
            if workload.network_mode is NetworkMode.STANDARD:
                return workload
            shared += 1
            found = workload
        return found if shared == 1 else None

    def local_workload(self, namespace: str, name: str, service_account: str) -> Workload | None:
        """The workload that a pod's claim (ZDS) names; ours, if other clusters have its like."""
        uids = self._by_local.get((namespace, name, service_account), ())
        found = [each for uid in tuple(uids) if (each := self.workload(uid)) is not None]
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

    def endpoints(self, service_key: str) -> tuple[Workload, ...]:
        """Every workload of the service, healthy or not."""
        known = self._endpoints.get(service_key)
        if known is None:
            uids = tuple(self._by_service.get(service_key, ()))
            known = tuple(each for uid in uids if (each := self.workload(uid)) is not None)
            self._endpoints[service_key] = known
        return known

    def policies_for(self, workload: Workload) -> tuple[Policy, ...]:
        """Everything `decide()` has to look at for connections to this workload."""
        question = (workload.namespace, workload.authorization_policies)
        answer = self._policies.answers.get(question)
        if answer is None:
            answer = tuple(self._applicable(*question))
            self._policies.answers[question] = answer
        return answer

    def _applicable(self, namespace: str, named: tuple[str, ...]) -> Iterator[Policy]:
        keys = dict(self._policies.everywhere)
        keys.update(self._policies.by_namespace.get(namespace, {}))
        keys.update(dict.fromkeys(named))
        for key in keys:
            policy = self.policy(key)
            if policy is None:
                self.unknown_policies += 1
            else:
                yield policy

    def recall(self, question: Hashable) -> object | None:
        """What `remember()` was given, as long as no address has changed since."""
        return self._remembered.get(question)

    def remember(self, question: Hashable, answer: object) -> None:
        if len(self._remembered) >= REMEMBERED_MAX:
            self._remembered.clear()
        self._remembered[question] = answer

    # Wholes

    def workloads(self) -> Iterator[Workload]:
        """Decoded one by one and not kept: for pages, not for connections."""
        return self._each(self._workloads, Workload)

    def services(self) -> Iterator[Service]:
        return self._each(self._services, Service)

    def policies(self) -> Iterator[Policy]:
        return (held.value for held in self._held_policies.values() if held.value is not None)

    def snapshot(self) -> Iterator[Entry]:
        """Entries that bring an empty state to this one: for a worker that has just started."""
        for name, policy in self._held_policies.items():
            op = Op.REJECTED_POLICY if name in self._substitutes else Op.POLICY
            yield Entry(op, name, policy.raw)
        for name, service in self._services.items():
            yield Entry(Op.ADDRESS, name, service.raw)
        for name, workload in self._workloads.items():
            yield Entry(Op.ADDRESS, name, workload.raw)
        if self.synced:
            yield Entry(Op.SNAPSHOT)

    def counts(self) -> dict[str, int]:
        return {
            "workloads": len(self._workloads),
            "services": len(self._services),
            "policies": len(self._held_policies),
        }

    def _each(self, held: dict[str, _Held[_Value]], kind: type[_Value]) -> Iterator[_Value]:
        for each in tuple(held.values()):
            value = each.value if each.value is not None else _decode(each.raw)
            if isinstance(value, kind):
                yield value

    def _value(
        self, held: dict[str, _Held[_Value]], name: str, forget: Callable[[str], bool]
    ) -> _Value | None:
        item = held.get(name)
        if item is None:
            return None
        if item.value is None:
            value = _decode(item.raw)
            if value is None:
                self._rejected[name] = "cannot be understood"
                forget(name)
                return None
            item.value = value  # type: ignore[assignment] # the table says which of the two it is
        return item.value


def deny_all(name: str, raw: bytes) -> Policy | None:
    """What stands in for a policy that was refused: deny, as widely as it could have reached.

    None for a dry run, which never refuses anything. When not even the scope can be read, the
    namespace in the name is what it could have reached.
    """
    namespace, _, short = name.partition("/")
    scope = PolicyScope.NAMESPACE
    try:
        message = security_pb2.Authorization.FromString(raw)
        if message.dry_run:
            return None
        if message.name:
            scope = PolicyScope(message.scope)
    except (DecodeError, ValueError):
        pass  # a scope from the future, or no message at all: the namespace it is
    return Policy(short, namespace, scope, Action.DENY, (Rule(),))


def _decode(raw: bytes) -> Workload | Service | None:
    try:
        return resource_from_wire(workload_pb2.Address.FromString(raw))
    except (DecodeError, WireError):
        return None


def _workload_keys(message: workload_pb2.Workload) -> _WorkloadKeys:
    network = message.network
    return _WorkloadKeys(
        at=tuple((network, address_from_wire(each)) for each in message.addresses),
        local=(message.namespace, message.name, message.service_account or "default"),
        services=tuple(message.services),
        policies=tuple(message.authorization_policies),
    )


def _remove(index: dict[_Key, dict[str, None]], key: _Key, name: str) -> None:
    names = index.get(key)
    if names is not None:
        names.pop(name, None)
        if not names:
            del index[key]
