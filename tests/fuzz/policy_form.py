"""Form of the objects in the policy model: which of them can be understood, and why not.

A table of fields and checks, written from the API of Kubernetes and of Istio's security group. The
rule is to refuse: an unknown field, a wrong type, a list that is there and empty, a number written
in a second way. A null counts as a field that is not there. Shares no code with the product.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from typing import Any

Tree = dict[str, Any]
Check = Callable[[Any], str]  # a complaint, or "" for a value that is fine

RULES_MOST = 512
TARGETS_MOST = 16
ACCOUNTS_MOST = 16
ACCOUNT_LETTERS_MOST = 320
VALUES_MOST = 4096

SOURCE_LAYER_7 = (
    "requestPrincipals",
    "notRequestPrincipals",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "trustDomains",
    "notTrustDomains",
)
OPERATION_LAYER_7 = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
_LAYER_7_KEY = re.compile(
    r"remote\.ip|connection\.sni|source\.trustDomain|request\.auth\.(principal|audiences|presenter)"
    r"|request\.(experimental\.inline\.)?headers\[.+\]|request\.auth\.claims(\[.+\])+"
    r"|experimental\.envoy\.filters\..*\[.+\]"
)


def is_layer_7(key: str) -> bool:
    """True for a condition that only a proxy of layer 7 can check."""
    return _LAYER_7_KEY.fullmatch(key) is not None


# Small checks


def text(value: Any) -> str:
    return "" if isinstance(value, str) else f"{value!r} is not a string"


def word(value: Any) -> str:
    return text(value) or ("" if value else "an empty string")


def flag(value: Any) -> str:
    return "" if isinstance(value, bool) else f"{value!r} is not true or false"


def number(value: Any) -> str:
    good = isinstance(value, int) and not isinstance(value, bool) and 0 < value < 65536
    return "" if good else f"{value!r} is not a port number"


def shaped(pattern: str) -> Check:
    expression = re.compile(pattern)

    def check(value: Any) -> str:
        complaint = text(value)
        if complaint or value == "" or expression.fullmatch(value):
            return complaint
        return f"{value!r} has the wrong shape"

    return check


def port(value: Any) -> str:
    """A port as text: one to five digits, the first of them not a zero."""
    if text(value):
        return text(value)
    good = re.fullmatch("[1-9][0-9]{0,4}", value) and int(value) < 65536
    return "" if good else f"{value!r} is not a port"


def address(value: Any) -> str:
    if text(value):
        return text(value)
    try:
        ipaddress.ip_address(value)
    except ValueError:
        return f"{value!r} is not an address"
    return "a zone means nothing on another host" if "%" in value else ""


def block(value: Any) -> str:
    if text(value):
        return text(value)
    head, slash, length = value.partition("/")
    if address(head):
        return address(head)
    if not slash:
        return ""
    parsed = ipaddress.ip_address(head)
    if not re.fullmatch("0|[1-9][0-9]{0,2}", length) or int(length) > parsed.max_prefixlen:
        return f"{value!r} has no good prefix length"
    if parsed.version == 6 and parsed.ipv4_mapped is not None and int(length) < 96:
        return f"{value!r} is neither a block of IPv4 nor one of IPv6"
    return ""


def account(value: Any) -> str:
    if word(value):
        return word(value)
    parts = value.split("/")
    bad = len(parts) > 2 or "" in parts or "*" in value or len(value) > ACCOUNT_LETTERS_MOST
    return f"{value!r} is not a service account" if bad else ""


# Checks made of checks


def mapping(known: Mapping[str, Check], needs: tuple[str, ...] = ()) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return f"{value!r} is not a mapping"
        for name, item in value.items():
            if name not in known:
                return f"unknown field {name}"
            if item is not None and (complaint := known[name](item)):
                return f"{name}: {complaint}"
        missing = [name for name in needs if not value.get(name)]
        return f"{missing[0]} is missing" if missing else ""

    return check


def open_mapping(known: Mapping[str, Check], needs: tuple[str, ...] = ()) -> Check:
    """As `mapping`, but fields that nobody reads may be there as well."""

    def check(value: Any) -> str:
        if not isinstance(value, dict):
            return f"{value!r} is not a mapping"
        return mapping(known, needs)({name: value[name] for name in value if name in known})

    return check


def listing(item: Check, most: int = VALUES_MOST, least: int = 1) -> Check:
    def check(value: Any) -> str:
        if not isinstance(value, list):
            return f"{value!r} is not a list"
        if not least <= len(value) <= most:
            return f"{len(value)} entries"
        return next((complaint for each in value if (complaint := item(each))), "")

    return check


def any_of(*checks: Check) -> Check:
    def check(value: Any) -> str:
        complaints = [each(value) for each in checks]
        return "" if "" in complaints else complaints[0]

    return check


def anything(value: Any) -> str:
    return ""


def texts_by_name(value: Any) -> str:
    """Labels: a mapping of strings to strings; a null stands for the empty string."""
    if not isinstance(value, dict):
        return f"{value!r} is not a mapping"
    return next((text(each) for each in value.values() if each is not None and text(each)), "")


# AuthorizationPolicy

words = listing(word)
blocks = listing(block)
ports = listing(port)
accounts = listing(account, ACCOUNTS_MOST)

_SOURCE = {
    "principals": words,
    "notPrincipals": words,
    "namespaces": words,
    "notNamespaces": words,
    "serviceAccounts": accounts,
    "notServiceAccounts": accounts,
    "ipBlocks": blocks,
    "notIpBlocks": blocks,
    **dict.fromkeys(SOURCE_LAYER_7, words),
}
_OPERATION = {"ports": ports, "notPorts": ports, **dict.fromkeys(OPERATION_LAYER_7, words)}
_VALUES_OF = {
    "source.ip": blocks,
    "destination.ip": blocks,
    "remote.ip": blocks,  # only layer 7 knows it, but it is an address
    "destination.port": ports,
    "source.namespace": words,
    "source.principal": words,
    "source.serviceAccount": accounts,
}


def given(tree: Mapping[str, Any]) -> set[str]:
    """Names of the fields that are there."""
    return {name for name, value in tree.items() if value is not None}


def source(value: Any) -> str:
    complaint = mapping(_SOURCE)(value)
    if complaint:
        return complaint
    there = given(value)
    if not there:
        return "a source without any field"
    by_account = there & {"serviceAccounts", "notServiceAccounts"}
    by_name = there & {"principals", "notPrincipals", "namespaces", "notNamespaces"}
    return "service accounts beside another identity" if by_account and by_name else ""


def operation(value: Any) -> str:
    return mapping(_OPERATION)(value) or ("" if given(value) else "an operation without any field")


def condition(value: Any) -> str:
    complaint = mapping({"key": word, "values": anything, "notValues": anything}, ("key",))(value)
    if complaint:
        return complaint
    if not given(value) & {"values", "notValues"}:
        return "neither values nor notValues"
    key = value["key"]
    if key not in _VALUES_OF and not is_layer_7(key):
        return f"unknown condition {key}"
    check = _VALUES_OF.get(key, words)
    return mapping({"key": word, "values": check, "notValues": check})(value)


rule = mapping(
    {
        "from": listing(mapping({"source": source}, ("source",))),
        "to": listing(mapping({"operation": operation}, ("operation",))),
        "when": listing(condition, least=0),
    }
)
action = any_of(lambda value: "" if value in ("", "ALLOW", "DENY", "AUDIT", "CUSTOM") else "action")


def selector(value: Any) -> str:
    complaint = mapping({"matchLabels": texts_by_name})(value)
    if complaint:
        return complaint
    labels = (value.get("matchLabels") or {}).items()
    if any(not name or "*" in name or "*" in (wanted or "") for name, wanted in labels):
        return "a label that no object has"
    return ""


def labels_of(spec: Mapping[str, Any]) -> dict[str, str]:
    """Labels that a policy selects; empty: it selects nobody in particular."""
    found = (spec.get("selector") or {}).get("matchLabels") or {}
    return {name: wanted or "" for name, wanted in found.items()}


target = open_mapping({"kind": text, "name": text}, ("kind", "name"))
targets = listing(target, TARGETS_MOST, least=0)


def has_targets(spec: Mapping[str, Any]) -> bool:
    return bool(spec.get("targetRefs")) or spec.get("targetRef") is not None


TOP = {"apiVersion", "kind", "metadata", "spec", "status"}
SPEC: Mapping[str, Check] = {
    "selector": selector,
    "targetRef": target,
    "targetRefs": targets,
    "rules": listing(rule, RULES_MOST, least=0),
    "action": action,
    "provider": anything,
}


def authorization(value: Any) -> str:
    complaint = mapping(SPEC)(value)
    if complaint:
        return complaint
    return "targets beside a selector" if has_targets(value) and labels_of(value) else ""


# PeerAuthentication

mode = mapping(
    {"mode": lambda value: "" if value in ("", "UNSET", "DISABLE", "PERMISSIVE", "STRICT") else "?"}
)


def ports_by_number(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value!r} is not a mapping"
    modes = (mode(each) for each in value.values() if each is not None)
    return next((each for each in [*map(port, value), *modes] if each), "")


PEER_SPEC: Mapping[str, Check] = {
    "selector": selector,
    "mtls": mode,
    "portLevelMtls": ports_by_number,
}


def peer_authentication(value: Any) -> str:
    complaint = mapping(PEER_SPEC)(value)
    if not complaint and value.get("portLevelMtls") and not labels_of(value):
        return "ports without a selector"
    return complaint
