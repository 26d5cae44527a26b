"""The change from one root to another, so that no handshake is refused on the way. Pure.

Nodes learn of roots when they renew a leaf. So a new root is announced first: for the longest life
of a leaf the CA before it goes on signing, and its leaves come with both roots. Then the new CA
signs, and the roots that are no longer wanted are trusted until the last leaf below them is over.
The record of it is shared by all replicas, those too that start on the way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from cryptography import x509

from control.server.ca.authority import Authority, pem_of
from control.server.ca.secret import ROOTS_MAX, BadCaSecret, authority_of

# Replicas look every ten seconds, and their clocks may differ.
SLACK: Final = timedelta(minutes=10)
# A CA that is about to end signs leaves that are shorter and shorter.
LEFT_MIN: Final = timedelta(hours=1)


class KnownRoot(msgspec.Struct, frozen=True):
    """`since_s`: trusted by nodes' bundles from then on. `until_s`: not wanted any more, and
    trusted until then. Both in seconds of Unix time."""

    pem: str
    since_s: float = 0.0
    until_s: float | None = None


class Rotation(msgspec.Struct, frozen=True):
    """`signer`: data of the Secret of the CA that signs."""

    roots: list[KnownRoot]
    signer: dict[str, str]


BLANK: Final = Rotation([], {})  # without nodes: any root signs at once


@dataclass(frozen=True, slots=True)
class RotationStep:
    """`record`: to be written down before `authority` signs. `ready_at`: from then on the CA that
    is wanted may sign; None: it does."""

    record: Rotation
    authority: Authority
    ready_at: datetime | None


def step(
    record: Rotation | None,
    data: Mapping[str, str],
    where: str,
    *,
    now: datetime,
    carried: timedelta,
    passed: datetime | None = None,
) -> RotationStep:
    """The CA to sign with now. `data`: of the Secret that is wanted; `carried`: the longest life of
    a leaf; `passed`: not before what waits for this moment may end, if the clock may be ahead.
    Raises BadCaSecret for one that is wanted and cannot be used."""
    passed = passed or now
    wanted = authority_of(data, where, now)
    mine = list(map(pem_of, (wanted.root, *wanted.other_roots)))
    if record is None:  # the first ever: every node gets it with its first leaf
        return RotationStep(Rotation([KnownRoot(each) for each in mine], dict(data)), wanted, None)
    signer, ready_at = _signer(record, now), None
    roots = _announced(record, mine, now)
    if signer is not None and signer.root != wanted.root:
        since_s = next(each.since_s for each in roots if each.pem == mine[0])
        ready_at = _after(datetime.fromtimestamp(since_s, UTC), carried)
        if passed >= ready_at:
            ready_at = None
    if signer is None or ready_at is None:
        signer, kept, ready_at = wanted, dict(data), None
        roots = _retired(roots, mine, _after(now, carried))
    else:
        kept = record.signer
    roots = [each for each in roots if each.until_s is None or each.until_s > passed.timestamp()]
    trusted = tuple(_certificates(each.pem for each in roots))
    return RotationStep(Rotation(roots[-ROOTS_MAX:], kept), signer.beside(trusted, now), ready_at)


def _after(moment: datetime, carried: timedelta) -> datetime:
    """By then every leaf of that moment is over, at every replica."""
    return moment + carried + min(SLACK, carried)


def _signer(record: Rotation, now: datetime) -> Authority | None:
    """The CA that signed until now; None: it cannot any more."""
    try:
        found = authority_of(record.signer, "the CA before", now)
    except BadCaSecret:
        return None
    return found if found.ends_at - now >= LEFT_MIN else None


def _announced(record: Rotation, mine: list[str], now: datetime) -> list[KnownRoot]:
    """All known roots; those that are wanted, and are new, from now on."""
    known = [
        msgspec.structs.replace(each, until_s=None) if each.pem in mine else each
        for each in record.roots
    ]
    names = {each.pem for each in known}
    return known + [KnownRoot(each, now.timestamp()) for each in mine if each not in names]


def _retired(roots: list[KnownRoot], mine: list[str], until: datetime) -> list[KnownRoot]:
    """Those that are not wanted get an end."""
    return [
        msgspec.structs.replace(each, until_s=until.timestamp())
        if each.until_s is None and each.pem not in mine
        else each
        for each in roots
    ]


def _certificates(pems: Iterable[str]) -> Iterable[x509.Certificate]:
    for pem in pems:
        try:
            yield x509.load_pem_x509_certificate(pem.encode())
        except ValueError:
            continue  # somebody changed the record by hand
