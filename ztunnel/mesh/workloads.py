"""Uids of workloads by address, by a pod's claim and by service. No I/O.

Made for tens of thousands: nearly every key has one uid, which is stored without a container around
it, and no key is an object that the garbage collector examines.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from control.model.address import Address
from control.wire import workload_pb2 as pb
from control.wire.convert import address_from_wire
from ztunnel.mesh.groups import Group, groups_of
from ztunnel.mesh.owners import is_pod_uid

# One uid, or several in the order of arrival.
Uids: TypeAlias = str | dict[str, None]
_Key = TypeVar("_Key", bound=Hashable)

# As many as nodes and kinds of pods on them; beyond, equal ones take memory of their own.
GROUPS_KEPT_MAX = 4096


@dataclass(frozen=True, slots=True)
class WorkloadKeys:
    """Keys by which a workload is found."""

    network: str
    addresses: tuple[Address, ...]  # none where a look-up by address has to pass it over
    claim: int
    groups: dict[str, Group]  # by service of which it is an endpoint: its group
    # Names of its policies.
    namespace: str
    policies: tuple[str, ...]
    place: tuple[str, str]  # node and cluster: whose workload wins a claim

    def means_the_same(self, other: WorkloadKeys) -> bool:
        """True if the same connections to its pod are allowed."""
        return (
            self.policies == other.policies
            and self.claim == other.claim
            and self.place == other.place
            and self.namespace == other.namespace
        )

    def cover(self, before: WorkloadKeys) -> bool:
        """True if every address of `before` is still one of these."""
        return self.network == before.network and set(before.addresses) <= set(self.addresses)


def keys_of(message: pb.Workload) -> WorkloadKeys:
    """The keys of a message; WireError for an address that is none."""
    namespace = message.namespace
    addresses = tuple(map(address_from_wire, message.addresses))
    return WorkloadKeys(
        network=message.network,
        addresses=() if _is_place(message) else addresses,
        claim=claim(namespace, message.name, message.service_account or "default"),
        groups=groups_of(message, addresses),
        namespace=namespace,
        policies=tuple(message.authorization_policies),
        place=(message.node, message.cluster_id),
    )


def _is_place(message: pb.Workload) -> bool:
    """An address on some host, named by an endpoint slice: nobody's, but an endpoint."""
    return (
        message.network_mode == pb.HOST_NETWORK and not message.node and not is_pod_uid(message.uid)
    )


def claim(namespace: str, name: str, service_account: str) -> int:
    """Hash of a pod's claim by ZDS, a fifth of the texts' size. Different claims may share one,
    so the caller compares the workload itself."""
    return hash((namespace, name, service_account))


class WorkloadIndex:
    def __init__(self, *, claims_only: bool = False) -> None:
        """`claims_only`: nobody asks for addresses or services, which take two thirds of it."""
        self._claims_only = claims_only
        self._at: dict[str, dict[Address, Uids]] = {}  # by network
        self._claims: dict[int, Uids] = {}
        self._members: dict[str, dict[Group, Uids]] = {}  # by service
        self._groups: dict[Group, Group] = {}  # one value for all that are equal

    def put(self, uid: str, keys: WorkloadKeys) -> None:
        """Add a workload; its uid becomes the latest under each key."""
        _add(self._claims, keys.claim, uid)
        if self._claims_only:
            return
        at = self._at.setdefault(keys.network, {})
        for address in keys.addresses:
            _add(at, address, uid)
        for service, group in keys.groups.items():
            _add(self._members.setdefault(service, {}), self._shared(group), uid)

    def _shared(self, group: Group) -> Group:
        if len(self._groups) >= GROUPS_KEPT_MAX:
            self._groups.clear()
        return self._groups.setdefault(group, group)

    def drop(self, uid: str, keys: WorkloadKeys) -> None:
        at = self._at.get(keys.network, {})
        for address in keys.addresses:
            _remove(at, address, uid)
        if not at:
            self._at.pop(keys.network, None)
        _remove(self._claims, keys.claim, uid)
        for service, group in keys.groups.items():
            members = self._members.get(service)
            if members is not None:
                _remove(members, group, uid)
                if not members:
                    del self._members[service]

    def at(self, network: str, address: Address) -> tuple[str, ...]:
        """Uids in the order of arrival."""
        return _uids(self._at.get(network, {}).get(address))

    def claimed(self, number: int) -> tuple[str, ...]:
        return _uids(self._claims.get(number))

    def members(self, service: str) -> Iterable[tuple[Group, tuple[str, ...]]]:
        """Uids of a service's endpoints, alike ones together."""
        for group, found in self._members.get(service, {}).items():
            yield group, _uids(found)


def _uids(found: Uids | None) -> tuple[str, ...]:
    if found is None:
        return ()
    return (found,) if isinstance(found, str) else tuple(found)


def _add(index: dict[_Key, Uids], key: _Key, uid: str) -> None:
    found = index.setdefault(key, uid)
    if isinstance(found, dict):
        found.pop(uid, None)
        found[uid] = None
    elif found != uid:
        index[key] = {found: None, uid: None}


def _remove(index: dict[_Key, Uids], key: _Key, uid: str) -> None:
    found = index.get(key)
    if isinstance(found, dict):
        found.pop(uid, None)
        if len(found) == 1:
            index[key] = next(iter(found))
    elif found == uid:
        del index[key]
