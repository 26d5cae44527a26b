"""Remarks on claims to addresses that have no effect, as notes that name both objects. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from control.model.address import format_address
from control.server.compile.claims import POD_RANKS, Lost, Rank
from control.server.compile.holdings import Holdings
from control.server.sources.objects import Key
from control.server.sources.problem import Problem

ADDRESS_CLAIMED = "address_claimed"
ADDRESS_UNUSABLE = "address_unusable"


def remarks(holdings: Holdings) -> tuple[Problem, ...]:
    return tuple(sorted(_conflicts(holdings)))


def _conflicts(holdings: Holdings) -> Iterator[Problem]:
    """One for each pair of objects, however many addresses they dispute."""
    pairs: dict[tuple[Key, Key | None], list[Lost]] = {}
    for each in holdings.lost():
        owner, winner = each.claim.owner, None if each.to is None else each.to.owner
        if _is_worth_saying(each):
            pairs.setdefault((owner, winner), []).append(each)
    for (owner, _), lost in pairs.items():
        meta = holdings.meta(owner)
        more = f" (and {len(lost) - 1} more like it)" if len(lost) > 1 else ""
        reason = ADDRESS_UNUSABLE if lost[0].to is None else ADDRESS_CLAIMED
        yield Problem(meta.file, meta.line, str(owner), reason, _text(lost[0]) + more)


def _is_worth_saying(lost: Lost) -> bool:
    """False for a slice that names a pod of its own namespace by address: it means that pod."""
    claim, to = lost.claim, lost.to
    return not (
        to is not None
        and claim.rank is Rank.ENDPOINT
        and to.rank in POD_RANKS
        and claim.owner.namespace == to.owner.namespace
    )


def _text(lost: Lost) -> str:
    claim, to = lost.claim, lost.to
    address = format_address(claim.address)
    if to is None:
        return f"{claim.rank.noun} {address} means another host everywhere: it has no effect"
    ports = f" port {', '.join(map(str, lost.ports))}" if lost.ports else ""
    taken = f"{claim.rank.noun} {address}{ports} is the {to.rank.noun} of {to.owner}"
    if claim.rank is Rank.ENDPOINT and to.rank in POD_RANKS:
        return f"{taken}: connections go to that pod, with its identity and its policies"
    return f"{taken}: it has no effect here"
