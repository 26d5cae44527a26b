"""Holders of addresses, kept up to date by the rule of `claims`. Pure.

Cost grows with what changes: an address is decided when it is asked for, and again only after a
claim to it has changed; most have one claim and need no decision.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field

from control.model.address import Address
from control.server.compile.claims import (
    POD_RANKS,
    AddressClaim,
    Claimant,
    Decision,
    Lost,
    Rank,
    claims_of,
    decide,
    is_reported,
    is_special,
)
from control.server.sources.objects import Key, Meta


@dataclass(slots=True)
class Upset:
    """Owners of claims that an other's claim has changed. `moved`: what they hold is not what it
    was, at one of `addresses`. `remarked`: what there is to say of them."""

    moved: set[Key] = field(default_factory=set)
    addresses: set[Address] = field(default_factory=set)
    remarked: set[Key] = field(default_factory=set)


class Holdings:
    """Every claim of the objects that were put."""

    def __init__(self) -> None:
        self._metas: dict[Key, Meta] = {}
        self._made: dict[Key, tuple[AddressClaim, ...]] = {}
        self._at: dict[Address, AddressClaim | dict[tuple[Key, Rank], AddressClaim]] = {}
        # Only of addresses with several claims; the rest need no decision.
        self._decided: dict[Address, Decision] = {}
        self._contested: set[Address] = set()
        self._special: dict[Key, tuple[AddressClaim, ...]] = {}
        self._before: dict[Address, Decision] = {}  # touched addresses, as they were

    def put(self, value: Claimant, reported: bool = False) -> None:
        """A new or changed object. `reported`: a pod that its node calls captured."""
        key = value.meta.key
        self._metas[key] = value.meta
        each_once = {(each.address, each.rank): each for each in claims_of(value, reported)}
        claims = tuple(each_once.values())
        if special := tuple(each for each in claims if is_special(each)):
            claims = tuple(each for each in claims if each not in special)
            self._special[key] = special
        else:
            self._special.pop(key, None)
        self._replace(key, claims)

    def drop(self, key: Key) -> None:
        self._metas.pop(key, None)
        self._special.pop(key, None)
        self._replace(key, ())

    def settle(self) -> Generator[None, None, Upset]:
        """Everybody that the changes since the last time mean something to, besides those that
        were put; one address a step."""
        upset = Upset()
        touched, self._before = self._before, {}
        while touched:
            address, before = touched.popitem()
            after = self._now(address)
            if not after.is_as(before):
                upset.addresses.add(address)
                upset.moved.update(each.owner for each in self._claims(address))
            ours, theirs = after.lost_by_owner, before.lost_by_owner
            upset.remarked.update(
                owner
                for owner in ours.keys() | theirs.keys()
                if ours.get(owner) != theirs.get(owner)
            )
            upset.remarked |= after.left_out ^ before.left_out
            yield
        return upset

    def _replace(self, owner: Key, claims: tuple[AddressClaim, ...]) -> None:
        before = self._made.pop(owner, ())
        if claims:
            self._made[owner] = claims
        if claims == before:
            return
        for each in before:
            self._drop(each)
        for each in claims:
            self._add(each)

    def _add(self, claim: AddressClaim) -> None:
        known = self._at.get(claim.address)
        if known is None:
            self._at[claim.address] = claim
            return
        self._touch(claim.address)
        if isinstance(known, AddressClaim):
            known = self._at[claim.address] = {(known.owner, known.rank): known}
        known[claim.owner, claim.rank] = claim
        self._contested.add(claim.address)

    def _drop(self, claim: AddressClaim) -> None:
        known = self._at[claim.address]
        if isinstance(known, AddressClaim):
            del self._at[claim.address]
            return
        self._touch(claim.address)
        del known[claim.owner, claim.rank]
        if len(known) == 1:
            (self._at[claim.address],) = known.values()
            self._contested.discard(claim.address)

    def _touch(self, address: Address) -> None:
        """Several claims are made to it, or were: it has to be decided again."""
        if address not in self._before:
            self._before[address] = self._now(address)
        self._decided.pop(address, None)

    # Answers

    def owners(self) -> Iterable[Key]:
        """All objects that were put."""
        return self._metas.keys()

    def meta(self, owner: Key) -> Meta:
        return self._metas[owner]

    def pod_at(self, address: Address) -> Key | None:
        """The pod that has the address by its object. While only its node says so, a slice that
        names the address means a place as before."""
        first = self._first(address)
        if first is None or first.rank not in POD_RANKS or is_reported(first):
            return None
        return first.owner

    def has(self, owner: Key, address: Address) -> bool:
        """True for all of an address: a pod's own, a host's, or a cluster IP."""
        first = self._first(address)
        if first is None:
            return False
        return first.owner == owner or (
            first.rank is Rank.NODE and Rank.NODE in self._ranks(owner, address)
        )

    def is_place(self, slice_key: Key, address: Address) -> bool:
        """True if nothing else in the cluster is meant by an address that this slice names."""
        known = self._at.get(address)
        if isinstance(known, AddressClaim):
            return known.owner == slice_key
        if known is None or (slice_key, Rank.ENDPOINT) not in known:
            return False
        first = self._decide(address).first
        return first is None or first.rank is Rank.NODE or is_reported(first)

    def is_left_out(self, slice_key: Key, address: Address) -> bool:
        """True if too many slices of other namespaces name a pod's address before this one."""
        known = self._at.get(address)
        return isinstance(known, dict) and slice_key in self._decide(address).left_out

    def ports_of(self, owner: Key, address: Address) -> tuple[int, ...]:
        """Ports at which an address of a load balancer or an external one leads to a service."""
        known = self._at.get(address)
        if known is None or isinstance(known, AddressClaim):
            return known.ports if known is not None and known.owner == owner else ()
        by_port = self._decide(address).by_port
        return tuple(port for port, claim in sorted(by_port.items()) if claim.owner == owner)

    def lost(self, owner: Key) -> list[Lost]:
        """Claims of an object that are without effect, in one order."""
        found = [Lost(each, None) for each in self._special.get(owner, ())]
        for address in {each.address for each in self._made.get(owner, ())} & self._contested:
            found += self._decide(address).lost_by_owner.get(owner, ())
        return sorted(found, key=lambda each: (each.claim.order, each.claim.address))

    def _ranks(self, owner: Key, address: Address) -> set[Rank]:
        return {each.rank for each in self._made.get(owner, ()) if each.address == address}

    def _claims(self, address: Address) -> Iterator[AddressClaim]:
        known = self._at.get(address)
        if isinstance(known, AddressClaim):
            yield known
        elif known is not None:
            yield from known.values()

    def _first(self, address: Address) -> AddressClaim | None:
        known = self._at.get(address)
        if isinstance(known, AddressClaim):
            return known if known.rank <= Rank.CLUSTER_IP or is_reported(known) else None
        return None if known is None else self._decide(address).first

    def _now(self, address: Address) -> Decision:
        known = self._at.get(address)
        return self._decide(address) if isinstance(known, dict) else decide(self._claims(address))

    def _decide(self, address: Address) -> Decision:
        decision = self._decided.get(address)
        if decision is None:
            decision = decide(self._claims(address))
            self._decided[address] = decision
        return decision
