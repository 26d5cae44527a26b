"""Values of a policy that can match nobody, and matches that cannot hold. Pure.

A value is impossible if no pod, account, source or port of a mesh of Kubernetes can be what it
says: `spiffe://` before a principal, an inner `*`, a capital, a namespace that is no DNS label.
Such a policy is in force as it is written; its author meant something else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, TypeVar

from control.model.address import CidrBlock, parse_block
from control.model.policy import Match, ServiceAccountMatch, StringMatch, StringMatchKind
from control.model.workload import HBONE_PORT
from control.server.compile.names import EXACT, PREFIX, SUFFIX, Fits, is_label, is_name, literal

# Nobody connects from these, nor to them: this network, loopback, multicast, reserved.
_NOWHERE: Final = tuple(
    map(parse_block, ("0.0.0.0/8", "127.0.0.0/8", "224.0.0.0/3", "::/127", "ff00::/8"))
)

_Value = TypeVar("_Value")


def unmatched(match: Match, trust_domain: str) -> Iterator[str]:
    """A sentence for each value that is impossible."""
    for field, values, why in (
        ("namespaces", match.namespaces, _namespace),
        ("notNamespaces", match.not_namespaces, _namespace),
    ):
        yield from _told(field, values, why, _text)
    for field, values in (
        ("principals", match.principals),
        ("notPrincipals", match.not_principals),
    ):
        yield from _told(field, values, lambda each: _principal(each, trust_domain), _text)
    for field, accounts in (
        ("serviceAccounts", match.service_accounts),
        ("notServiceAccounts", match.not_service_accounts),
    ):
        yield from _told(field, accounts, _account, _account_text)
    for field, blocks in (
        ("ipBlocks", match.source_ips),
        ("notIpBlocks", match.not_source_ips),
        ("destination.ip", match.destination_ips),
        ("not destination.ip", match.not_destination_ips),
    ):
        yield from _told(field, blocks, _block, str)
    for field, ports in (
        ("ports", match.destination_ports),
        ("notPorts", match.not_destination_ports),
    ):
        yield from _told(field, ports, _port, str)


def _told(
    field: str,
    values: Iterable[_Value],
    why: Callable[[_Value], str],
    text: Callable[[_Value], str],
) -> Iterator[str]:
    effect = "excludes nobody" if field.startswith("not") else "matches nobody"
    for each in values:
        said = why(each)
        if said:
            yield f"{field}: {text(each)!r} {effect}: {said}"


def can_match(match: Match, trust_domain: str) -> bool:
    """True if some connection could be what this match says."""
    principals = [
        each
        for each in match.principals
        if not _principal(each, trust_domain)
        and not _is_covered(each, match.not_principals)
        and _is_in(each, match.namespaces, match.not_namespaces)
    ]
    namespaces = [
        each
        for each in match.namespaces
        if not _namespace(each) and not _is_covered(each, match.not_namespaces)
    ]
    accounts = [
        each
        for each in match.service_accounts
        if not _account(each) and each not in match.not_service_accounts
    ]
    return not match.is_empty and all(
        possible or not wanted
        for wanted, possible in (
            (match.principals, principals),
            (match.namespaces, namespaces),
            (match.service_accounts, accounts),
            (match.source_ips, _left(match.source_ips, match.not_source_ips)),
            (match.destination_ips, _left(match.destination_ips, match.not_destination_ips)),
            (
                match.destination_ports,
                {*match.destination_ports} - {HBONE_PORT, *match.not_destination_ports},
            ),
        )
    )


def _left(blocks: Iterable[CidrBlock], without: tuple[CidrBlock, ...]) -> list[CidrBlock]:
    return [
        each
        for each in blocks
        if not _block(each) and not any(_contains(other, each) for other in without)
    ]


def _is_covered(value: StringMatch, by: Iterable[StringMatch]) -> bool:
    """True if everything that `value` matches is matched by one of the others."""
    return any(_covers(other, value) for other in by)


def _covers(wide: StringMatch, value: StringMatch) -> bool:
    match wide.kind:
        case StringMatchKind.PRESENCE:
            return True
        case StringMatchKind.EXACT:
            return value == wide
        case StringMatchKind.PREFIX:
            return value.kind in (EXACT, PREFIX) and value.value.startswith(wide.value)
        case StringMatchKind.SUFFIX:
            return value.kind in (EXACT, SUFFIX) and value.value.endswith(wide.value)


def _is_in(
    principal: StringMatch, wanted: tuple[StringMatch, ...], unwanted: tuple[StringMatch, ...]
) -> bool:
    """False if the namespace of this principal is surely not one of those."""
    if principal.kind is not EXACT:
        return True
    namespace = principal.value.split("/")[2]
    if any(each.matches(namespace) for each in unwanted):
        return False
    return not wanted or any(each.matches(namespace) for each in wanted)


# -- each returns the reason why a value is impossible, "" if it is not -------------------------


def _namespace(value: StringMatch) -> str:
    if value.kind is StringMatchKind.PRESENCE or is_label(value.value, value.kind):
        return ""
    return _letters(value.value) or "a namespace is a DNS label"


def _principal(value: StringMatch, trust_domain: str) -> str:
    text, kind = value.value, value.kind
    if kind is StringMatchKind.PRESENCE:
        return ""
    if _is_principal(text, kind, trust_domain):
        return ""
    if text.startswith("spiffe:"):
        return "a principal is written without spiffe://"
    domain, slash, _ = text.partition("/")
    if slash and kind is not SUFFIX and domain != trust_domain and not _letters(text):
        return f"the trust domain is {trust_domain}"
    return _letters(text) or "a principal is TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT"


def _is_principal(text: str, kind: StringMatchKind, trust_domain: str) -> bool:
    form: list[Fits] = [literal(trust_domain), literal("ns"), is_label, literal("sa"), is_name]
    parts = text.split("/")
    kinds = [EXACT] * len(parts)
    if len(parts) > len(form) or (kind is EXACT and len(parts) < len(form)):
        return False
    if kind is PREFIX:
        kinds[-1] = PREFIX
        form = form[: len(parts)]
    elif kind is SUFFIX:
        kinds[0] = SUFFIX
        form = form[-len(parts) :]
    return all(fits(part, how) for fits, part, how in zip(form, parts, kinds, strict=True))


def _account(value: ServiceAccountMatch) -> str:
    if is_label(value.namespace, EXACT) and is_name(value.service_account, EXACT):
        return ""
    return _letters(_account_text(value)) or "namespace and account are DNS names"


def _block(value: CidrBlock) -> str:
    if any(_contains(each, value) for each in _NOWHERE):
        return "no connection of a pod has this address"
    return ""


def _contains(outer: CidrBlock, inner: CidrBlock) -> bool:
    return outer.length <= inner.length and inner.address in outer


def _port(value: int) -> str:
    return "it is the tunnel's own, policy sees the app's" if value == HBONE_PORT else ""


def _letters(text: str) -> str:
    """The first thing wrong with the letters of a name."""
    if "*" in text:
        return "a * stands at the beginning or at the end, once"
    if any(each.isspace() for each in text):
        return "names have no spaces"
    if text != text.lower():
        return "names have no capitals"
    return ""


def _text(value: StringMatch) -> str:
    match value.kind:
        case StringMatchKind.PREFIX:
            return f"{value.value}*"
        case StringMatchKind.SUFFIX:
            return f"*{value.value}"
        case _:
            return value.value


def _account_text(value: ServiceAccountMatch) -> str:
    return f"{value.namespace}/{value.service_account}"
