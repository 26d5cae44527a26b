"""Layer 4's part of a policy: the source as principals, the destination as it is known now.

The identity is the tunnel's, `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`. It is compared by letters,
never by a pattern that has a user's text in it: in a pattern a dot is any letter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TypeVar

from control.model.address import CidrBlock
from control.model.policy import Match, ServiceAccountMatch, StringMatch, StringMatchKind
from control.model.route import Front
from control.server.envoy.names import PEER, REMOTE_IP, Json, of_block

Value = TypeVar("Value")

_SCHEME = "spiffe://"
_SLASHES = 4  # in a principal, which is an identity without its scheme


def principals(match: Match) -> Iterator[Json | None]:
    """All have to hold. None: one that never does."""
    yield from _field(match.principals, match.not_principals, _principal)
    yield from _field(match.namespaces, match.not_namespaces, _namespace)
    yield from _field(match.service_accounts, match.not_service_accounts, _account)
    yield from _field(match.source_ips, match.not_source_ips, _source_ip)


def destination_holds(match: Match, front: Front, is_strict: bool) -> bool:
    """The destination is the service as it was dialled. Where some of its addresses are meant and
    some are not, `is_strict` decides."""

    def within(blocks: tuple[CidrBlock, ...]) -> bool | None:
        found = {any(each in block for block in blocks) for each in front.addresses}
        return found.pop() if len(found) == 1 else None if found else False

    if match.destination_ports and front.port not in match.destination_ports:
        return False
    if front.port in match.not_destination_ports:
        return False
    inside = within(match.destination_ips) if match.destination_ips else True
    outside = within(match.not_destination_ips) if match.not_destination_ips else False
    if inside is False or outside is True:
        return False
    return is_strict or (inside is True and outside is False)


def _field(
    wanted: tuple[Value, ...],
    unwanted: tuple[Value, ...],
    as_principal: Callable[[Value], Json | None],
) -> Iterator[Json | None]:
    if wanted:
        yield _any(wanted, as_principal)
    if unwanted and (banned := _any(unwanted, as_principal)) is not None:
        yield {"not_id": banned}


def _any(values: tuple[Value, ...], as_principal: Callable[[Value], Json | None]) -> Json | None:
    found = [one for each in values if (one := as_principal(each)) is not None]
    if len(found) < 2:
        return found[0] if found else None
    return {"or_ids": {"ids": found}}


def _principal(match: StringMatch) -> Json | None:
    value = match.value
    match match.kind:
        case StringMatchKind.EXACT:
            return _identity(exact=_SCHEME + value)
        case StringMatchKind.SUFFIX if value:
            # A longer one than a principal would match the scheme's slashes.
            return None if value.count("/") > _SLASHES else _identity(suffix=value)
        case StringMatchKind.PREFIX:
            return _identity(prefix=_SCHEME + value)
        case _:
            return _identity(prefix=_SCHEME)


def _namespace(match: StringMatch) -> Json | None:
    """The parts of an identity have no slashes: between `/ns/` and `/sa/` is the namespace, unless
    one is called `ns` or `sa` itself."""
    value = match.value
    if "/" in value and match.kind is not StringMatchKind.PRESENCE:
        return None
    match match.kind:
        case StringMatchKind.EXACT:
            return _identity(contains=f"/ns/{value}/sa/") if value else None
        case StringMatchKind.PREFIX if value:
            found = _identity(contains=f"/ns/{value}")
            return _but(found, "/ns/ns/sa/") if "sa".startswith(value) else found
        case StringMatchKind.SUFFIX if value:
            found = _identity(contains=f"{value}/sa/")
            return _but(found, "/ns/sa/sa/") if "ns".endswith(value) else found
        case _:
            return _identity(prefix=_SCHEME)


def _account(account: ServiceAccountMatch) -> Json:
    return _identity(suffix=f"/ns/{account.namespace}/sa/{account.service_account}")


def _source_ip(block: CidrBlock) -> Json:
    """The tunnel's, which is the pod's: not what X-Forwarded-For says."""
    ranges = {"ranges": [of_block(block)]}
    return {"filter_state": {"key": REMOTE_IP, "address_match": ranges}}


def _identity(**string_match: str) -> Json:
    return {"filter_state": {"key": PEER, "string_match": string_match}}


def _but(found: Json, text: str) -> Json:
    return {"and_ids": {"ids": [found, {"not_id": _identity(contains=text)}]}}
