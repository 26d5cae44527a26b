"""Holders of addresses, kept up to date by the rule of `claims`. Pure.

Cost grows with what changes: an address is decided when it is asked for, and again only after a
claim to it has changed; most have one claim and need no decision.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

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
from control.server.compile.pods import pod_uid
from control.server.sources.objects import Key, Meta, Objects, PodObject


class Holdings:
    """Every claim of the objects that it follows."""

    def __init__(self) -> None:
        self._objects: dict[Key, Claimant] = {}
        self._reported: set[Key] = set()
        self._uids: dict[Key, str] = {}  # only pods have one
        self._made: dict[Key, tuple[AddressClaim, ...]] = {}
        self._at: dict[Address, AddressClaim | dict[tuple[Key, Rank], AddressClaim]] = {}
        # Only of addresses with several claims; the rest need no decision.
        self._decided: dict[Address, Decision] = {}
        self._contested: set[Address] = set()
        self.revision = 0  # grows with each change at an address that several claim
        self._special: dict[Key, tuple[AddressClaim, ...]] = {}

    def follow(self, found: Objects, captured: Collection[str]) -> None:
        """Take over a new set of objects; those that are the same as before cost a look-up."""
        gone = self._objects.keys() - self._put_all(found, captured)
        for key in gone:
            self._replace(key, ())
            del self._objects[key]
            self._reported.discard(key)
            self._uids.pop(key, None)

    def _put_all(self, found: Objects, captured: Collection[str]) -> set[Key]:
        seen: set[Key] = set()
        kinds: tuple[Iterable[Claimant], ...] = (
            found.pods,
            found.nodes,
            found.services,
            found.slices,
        )
        for each in (one for kind in kinds for one in kind):
            key = each.meta.key
            seen.add(key)
            is_new = self._objects.get(key) is not each
            if is_new and isinstance(each, PodObject):
                self._uids[key] = pod_uid(each.meta)
            reported = self._uids.get(key) in captured
            if is_new or (key in self._reported) != reported:
                self._put(key, each, reported)
        return seen

    def _put(self, key: Key, value: Claimant, reported: bool) -> None:
        self._objects[key] = value
        (self._reported.add if reported else self._reported.discard)(key)
        self._replace(key, tuple(claims_of(value, reported)))

    def capture(self, pod: PodObject, reported: bool) -> tuple[PodObject, ...]:
        """Note a report about a pod, which may place it; all the pods that claim an address of it,
        or did, if it is not alone."""
        key = pod.meta.key
        known = self._objects.get(key)
        if not isinstance(known, PodObject):
            return ()
        addresses = tuple(dict.fromkeys((*known.addresses, *pod.addresses)))
        rivals = self._rivals(addresses)
        if (key in self._reported) != reported or known.addresses != pod.addresses:
            self._put(key, pod, reported)
            rivals |= self._rivals(addresses)
            if key in rivals:
                rivals[key] = pod  # not as it was before, at another address
        return tuple(rivals.values()) if rivals.keys() - {key} else ()

    def _rivals(self, addresses: tuple[Address, ...]) -> dict[Key, PodObject]:
        """The pods that claim one of these, if several objects do."""
        found: dict[Key, PodObject] = {}
        for address in addresses:
            for each in self._claims(address) if address in self._contested else ():
                other = self._objects[each.owner]
                if isinstance(other, PodObject) and each.rank in POD_RANKS:
                    found[each.owner] = other
        return found

    def _replace(self, owner: Key, claims: tuple[AddressClaim, ...]) -> None:
        for each in self._made.pop(owner, ()):
            self._drop(each)
        self._special.pop(owner, None)
        if special := tuple(each for each in claims if is_special(each)):
            self._special[owner] = special
            claims = tuple(each for each in claims if each not in special)
        for each in claims:
            self._add(each)
        if claims:
            self._made[owner] = claims

    def _add(self, claim: AddressClaim) -> None:
        known = self._at.setdefault(claim.address, claim)
        if known is claim:
            return
        if isinstance(known, AddressClaim):
            known = self._at[claim.address] = {(known.owner, known.rank): known}
        known[claim.owner, claim.rank] = claim
        self._contested.add(claim.address)
        self._touch(claim.address)

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
        self._decided.pop(address, None)
        self.revision += 1

    # Answers

    def claimants(self) -> Iterable[Claimant]:
        return self._objects.values()

    def meta(self, owner: Key) -> Meta:
        return self._objects[owner].meta

    def is_contested(self, address: Address) -> bool:
        """True if several claims are made to it."""
        return address in self._contested

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

    def lost(self) -> list[Lost]:
        """Every claim without effect, in one order."""
        found = [each for address in self._contested for each in self._decide(address).lost]
        found += [Lost(each, None) for claims in self._special.values() for each in claims]
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

    def _decide(self, address: Address) -> Decision:
        decision = self._decided.get(address)
        if decision is None:
            decision = decide(self._claims(address))
            self._decided[address] = decision
        return decision
