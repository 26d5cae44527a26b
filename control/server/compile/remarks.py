"""Remarks on claims to addresses and on fields that have no effect, as notes. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from control.model.address import format_address
from control.server.compile.claims import POD_RANKS, STRANGERS_MAX, Lost, Rank
from control.server.compile.holdings import Holdings
from control.server.sources.objects import EndpointSlice, Key, ServiceObject
from control.server.sources.problem import Problem

ADDRESS_CLAIMED = "address_claimed"
ADDRESS_UNUSABLE = "address_unusable"
NOT_FOLLOWED = "not_followed"


def remarks(
    owner: Key, holdings: Holdings, value: ServiceObject | EndpointSlice | None, is_near: bool
) -> list[Problem]:
    """`value`: the object, if it is of a kind with such fields. `is_near`: its service follows
    distances."""
    return [*_conflicts(owner, holdings), *_fields(value, is_near)]


def _conflicts(owner: Key, holdings: Holdings) -> Iterator[Problem]:
    """One for each other object, however many addresses they dispute."""
    by_winner: dict[Key | None, list[Lost]] = {}
    for each in holdings.lost(owner):
        if _is_worth_saying(each):
            by_winner.setdefault(None if each.to is None else each.to.owner, []).append(each)
    for lost in by_winner.values():
        meta = holdings.meta(owner)
        more = f" (and {len(lost) - 1} more like it)" if len(lost) > 1 else ""
        reason = ADDRESS_UNUSABLE if lost[0].to is None else ADDRESS_CLAIMED
        yield Problem(meta.file, meta.line, str(owner), reason, _text(lost[0], holdings) + more)


def _fields(value: ServiceObject | EndpointSlice | None, is_near: bool) -> Iterator[Problem]:
    """Fields that are not followed."""
    if value is None:
        return
    said: tuple[str, ...] = ()
    if isinstance(value, ServiceObject):
        said = value.not_followed
    elif value.has_hints and not is_near:
        said = ("hints have no effect; trafficDistribution of the service has",)
    meta = value.meta
    for one in said:
        yield Problem(meta.file, meta.line, str(meta.key), NOT_FOLLOWED, one)


def _is_worth_saying(lost: Lost) -> bool:
    """False for a slice that names a pod of its own namespace by address: it means that pod."""
    claim, to = lost.claim, lost.to
    return not (
        to is not None
        and claim.rank is Rank.ENDPOINT
        and to.rank in POD_RANKS
        and claim.owner.namespace == to.owner.namespace
    )


def _text(lost: Lost, holdings: Holdings) -> str:
    claim, to = lost.claim, lost.to
    address = format_address(claim.address)
    if to is None:
        return f"{claim.rank.noun} {address} means another host everywhere: it has no effect"
    ports = f" port {', '.join(map(str, lost.ports))}" if lost.ports else ""
    taken = f"{claim.rank.noun} {address}{ports} is the {to.rank.noun} of {to.owner}"
    if claim.rank is Rank.ENDPOINT and to.rank in POD_RANKS:
        if holdings.is_left_out(claim.owner, claim.address):
            return f"{taken}, which {STRANGERS_MAX} slices of other namespaces name: it is left out"
        return f"{taken}: connections go to that pod, with its identity and its policies"
    return f"{taken}: it has no effect here"
