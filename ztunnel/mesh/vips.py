"""Services by virtual address and by hostname, with an order among rivals. No I/O.

An exact address beats a block of addresses; then a service that has the port wins, then the one in
the client's own namespace, then the Kubernetes service over other kinds, and last the first name in
order. A service that is private to its namespace does not exist for clients of another. Outer
addresses lead to a service at its ports only, where nobody has the address as a VIP.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from control.kit.errors import WireError
from control.model.address import Address, CidrBlock
from control.model.workload import OuterAddress
from control.wire import workload_pb2 as pb
from control.wire.convert import address_from_wire
from control.wire.extensions import read_service

_Key = TypeVar("_Key")


@dataclass(frozen=True, slots=True)
class _Claim:
    """Fields of a service that order it among rivals."""

    namespace: str
    hostname: str
    canonical: bool
    private: bool
    exact: tuple[tuple[str, Address], ...]
    blocks: tuple[tuple[str, CidrBlock], ...]
    ports: frozenset[int]
    outer: tuple[OuterAddress, ...]


class VipIndex:
    def __init__(self) -> None:
        self._claims: dict[str, _Claim] = {}
        self._exact: dict[tuple[str, Address], tuple[str, ...]] = {}
        self._outer: dict[tuple[str, Address, int], tuple[str, ...]] = {}
        self._names: dict[str, tuple[str, ...]] = {}
        self._with_blocks: dict[str, _Claim] = {}  # few: only hosts outside the cluster use them

    def put(self, key: str, message: pb.Service) -> None:
        """WireError leaves the earlier version of the service in place."""
        claim = _claim(message)
        self.drop(key)
        self._claims[key] = claim
        for at in claim.exact:
            self._exact[at] = (*self._exact.get(at, ()), key)
        for each in _outer_keys(claim):
            self._outer[each] = (*self._outer.get(each, ()), key)
        self._names[claim.hostname] = (*self._names.get(claim.hostname, ()), key)
        if claim.blocks:
            self._with_blocks[key] = claim

    def drop(self, key: str) -> None:
        claim = self._claims.pop(key, None)
        if claim is None:
            return
        for at in claim.exact:
            _without(self._exact, at, key)
        for each in _outer_keys(claim):
            _without(self._outer, each, key)
        _without(self._names, claim.hostname, key)
        self._with_blocks.pop(key, None)

    def at(
        self, network: str, address: Address, client_namespace: str, port: int = 0
    ) -> str | None:
        """The service with this VIP."""
        keys = self._exact.get((network, address))
        best = None if keys is None else self._best(keys, client_namespace, port)
        if best is None and self._with_blocks:
            return self._in_block(network, address, client_namespace)
        return best

    def outer(self, network: str, address: Address, client_namespace: str, port: int) -> str | None:
        """The service with this outer address and port."""
        keys = self._outer.get((network, address, port)) if self._outer else None
        return None if keys is None else self._best(keys, client_namespace)

    def named(self, hostname: str, client_namespace: str) -> str | None:
        return self._best(self._names.get(hostname, ()), client_namespace)

    def _best(self, keys: Iterable[str], client_namespace: str, port: int = 0) -> str | None:
        visible = [key for key in keys if self._visible(key, client_namespace)]
        if len(visible) < 2:
            return visible[0] if visible else None

        def order(key: str) -> tuple[bool, bool, bool, str]:
            claim = self._claims[key]
            lacks_port = bool(port and claim.ports) and port not in claim.ports
            return (lacks_port, claim.namespace != client_namespace, not claim.canonical, key)

        return min(visible, key=order)

    def _in_block(self, network: str, address: Address, client_namespace: str) -> str | None:
        found: list[tuple[bool, int, bool, str]] = []
        for key, claim in self._with_blocks.items():
            lengths = [
                block.length
                for where, block in claim.blocks
                if where == network and address in block
            ]
            if lengths and self._visible(key, client_namespace):
                foreign = claim.namespace != client_namespace
                found.append((foreign, -max(lengths), not claim.canonical, key))
        return min(found)[-1] if found else None

    def _visible(self, key: str, client_namespace: str) -> bool:
        claim = self._claims[key]
        return not claim.private or claim.namespace == client_namespace


def _claim(message: pb.Service) -> _Claim:
    exact: list[tuple[str, Address]] = []
    blocks: list[tuple[str, CidrBlock]] = []
    for each in message.addresses:
        address = address_from_wire(each.address)
        if each.HasField("length") and each.length < 8 * len(address):
            blocks.append((each.network, CidrBlock(address, each.length)))
        elif each.HasField("length") and each.length > 8 * len(address):
            raise WireError(f"prefix length {each.length} of a VIP")
        else:
            exact.append((each.network, address))
    return _Claim(
        namespace=message.namespace,
        hostname=message.hostname,
        canonical=message.canonical,
        private=message.visibility == pb.NAMESPACE,
        exact=tuple(dict.fromkeys(exact)),
        blocks=tuple(blocks),
        ports=frozenset(each.service_port for each in message.ports),
        outer=read_service(message.extensions)[0] if message.extensions else (),
    )


def _outer_keys(claim: _Claim) -> Iterator[tuple[str, Address, int]]:
    for each in claim.outer:
        for port in each.ports:
            yield each.network, each.address, port


def _without(index: dict[_Key, tuple[str, ...]], key: _Key, name: str) -> None:
    names = tuple(each for each in index.get(key, ()) if each != name)
    if names:
        index[key] = names
    else:
        index.pop(key, None)
