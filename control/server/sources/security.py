"""AuthorizationPolicy and PeerAuthentication, read strictly: any unknown content is refused.

A refused policy still has an effect: `stand_in()` makes the policy that takes its place, and that
one only ever denies.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from control.model.address import CidrBlock, parse_block
from control.server.sources.core import generation_of, uid_of
from control.server.sources.objects import (
    AuthorizationPolicy,
    Condition,
    Key,
    Labels,
    Meta,
    MtlsMode,
    Operation,
    PeerAuthentication,
    PolicyAction,
    PolicyRule,
    PolicySource,
)
from control.server.sources.problem import Invalid
from control.server.sources.reader import Reader
from control.server.sources.route_specs import TargetRef
from control.server.sources.yaml_text import Fields

RULES_MAX = 512  # as Istio's schema
TARGET_REFS_MAX = 16
SERVICE_ACCOUNTS_MAX = 16
SERVICE_ACCOUNT_CHARS_MAX = 320
VALUES_MAX = 4096  # per field: a policy is sent to every node

_TOP = ("apiVersion", "kind", "metadata", "spec", "status")
_SPEC = ("selector", "targetRef", "targetRefs", "rules", "action", "provider")
_PEER_SPEC = ("selector", "mtls", "portLevelMtls")
_SOURCE_BEYOND = (
    "requestPrincipals",
    "notRequestPrincipals",
    "remoteIpBlocks",
    "notRemoteIpBlocks",
    "trustDomains",
    "notTrustDomains",
)
_SOURCE_L4 = (
    "principals",
    "notPrincipals",
    "namespaces",
    "notNamespaces",
    "serviceAccounts",
    "notServiceAccounts",
    "ipBlocks",
    "notIpBlocks",
)
_OPERATION_BEYOND = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
_TEXT_KEYS = ("source.namespace", "source.principal")
_ACCOUNT_KEYS = ("source.serviceAccount",)
_BLOCK_KEYS = ("source.ip", "destination.ip")
_PORT_KEYS = ("destination.port",)
_L7_BLOCK_KEYS = ("remote.ip",)
_L7_KEYS = (
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "connection.sni",
    "source.trustDomain",
)
_L7_KEY_SHAPE = re.compile(
    r"request\.(?:experimental\.inline\.)?headers\[.{1,256}\]|request\.auth\.claims(\[.{1,256}\])+"
    r"|experimental\.envoy\.filters\..{0,256}\[.{1,256}\]"
)
# One spelling a port: of `8080` and `08080`, two keys of one mapping, neither could win.
_PORT = re.compile(r"[1-9][0-9]{0,4}")


def read_authorization_policy(document: Reader, meta: Meta) -> AuthorizationPolicy:
    document.only(*_TOP)
    spec = document.part("spec")
    spec.only(*_SPEC)
    targets = _targets(spec, meta.namespace)
    selector = _selector(spec)
    if selector and targets:
        raise spec.invalid("selector", "cannot stand beside targetRefs")
    rules = spec.children("rules")
    if len(rules) > RULES_MAX:
        raise spec.invalid("rules", f"{len(rules)} rules, more than {RULES_MAX}")
    return AuthorizationPolicy(
        meta=meta,
        action=_action(spec),
        selector=selector,
        rules=tuple(_rule(each, meta.namespace) for each in rules),
        targets=targets,
    )


def _targets(spec: Reader, namespace: str) -> tuple[TargetRef, ...]:
    """Targets of a policy, which are for waypoints; each must really name something."""
    targets = spec.children("targetRefs")
    if len(targets) > TARGET_REFS_MAX:
        raise spec.invalid("targetRefs", f"more than {TARGET_REFS_MAX} entries")
    if "targetRef" in spec:
        targets.append(spec.part("targetRef"))
    found = []
    for target in targets:
        for key in ("kind", "name"):
            if not target.text(key):
                raise target.invalid(key, "a target needs a kind and a name")
        group, space = target.text("group"), target.text("namespace") or namespace
        group = "" if group == "core" else group
        found.append(TargetRef(group, target.text("kind"), space, target.text("name")))
    return tuple(found)


def _action(spec: Reader) -> PolicyAction:
    text = spec.text("action") or "ALLOW"
    try:
        return PolicyAction(text)
    except ValueError as exc:
        raise spec.invalid("action", f"{text!r} is not ALLOW, DENY, AUDIT or CUSTOM") from exc


def _selector(spec: Reader) -> Labels:
    selector = spec.child("selector")
    if selector is None:
        return MappingProxyType({})
    selector.only("matchLabels")
    labels = selector.labels("matchLabels")
    for name, value in labels.items():
        if not name or "*" in name or "*" in value:
            raise selector.invalid("matchLabels", f"{name}={value}: wildcards are not supported")
    return labels


def _rule(rule: Reader, namespace: str) -> PolicyRule:
    rule.only("from", "to", "when")
    sources, operations = [], []
    for each in _filled(rule, "from"):
        each.only("source")
        sources.append(_source(_required(each, "source"), namespace))
    for each in _filled(rule, "to"):
        each.only("operation")
        operations.append(_operation(_required(each, "operation")))
    conditions = tuple(_condition(each, namespace) for each in rule.children("when"))
    return PolicyRule(tuple(sources), tuple(operations), conditions)


def _filled(rule: Reader, key: str) -> list[Reader]:
    """A list that, when it is there, has entries: an empty one would mean 'anybody'."""
    found = rule.children(key)
    if key in rule and not found:
        raise rule.invalid(key, "is an empty list")
    return found


def _required(entry: Reader, key: str) -> Reader:
    child = entry.child(key)
    if child is None or all(value is None for value in child.fields.values()):
        raise entry.invalid(key, "needs at least one field")
    return child


def _source(source: Reader, namespace: str) -> PolicySource:
    source.only(*_SOURCE_L4, *_SOURCE_BEYOND)
    accounts = _accounts(source, "serviceAccounts", namespace)
    not_accounts = _accounts(source, "notServiceAccounts", namespace)
    if accounts or not_accounts:
        for key in ("principals", "notPrincipals", "namespaces", "notNamespaces"):
            if key in source:
                raise source.invalid(key, "cannot stand beside serviceAccounts")
    return PolicySource(
        principals=_strings(source, "principals"),
        not_principals=_strings(source, "notPrincipals"),
        namespaces=_strings(source, "namespaces"),
        not_namespaces=_strings(source, "notNamespaces"),
        service_accounts=accounts,
        not_service_accounts=not_accounts,
        ip_blocks=_blocks(source, "ipBlocks"),
        not_ip_blocks=_blocks(source, "notIpBlocks"),
        beyond_l4=_beyond(source, _SOURCE_BEYOND),
        request_principals=_strings(source, "requestPrincipals"),
        not_request_principals=_strings(source, "notRequestPrincipals"),
    )


def _operation(operation: Reader) -> Operation:
    operation.only("ports", "notPorts", *_OPERATION_BEYOND)
    return Operation(
        ports=_ports(operation, "ports"),
        not_ports=_ports(operation, "notPorts"),
        beyond_l4=_beyond(operation, _OPERATION_BEYOND),
        hosts=_strings(operation, "hosts"),
        not_hosts=_strings(operation, "notHosts"),
        methods=_strings(operation, "methods"),
        not_methods=_strings(operation, "notMethods"),
        paths=_strings(operation, "paths"),
        not_paths=_strings(operation, "notPaths"),
    )


def _condition(condition: Reader, namespace: str) -> Condition:
    condition.only("key", "values", "notValues")
    key = condition.text("key")
    if "values" not in condition and "notValues" not in condition:
        raise condition.invalid("values", "values or notValues is needed")
    if key in _TEXT_KEYS:
        return Condition(key, _strings(condition, "values"), _strings(condition, "notValues"))
    if key in _ACCOUNT_KEYS:
        values = _accounts(condition, "values", namespace)
        return Condition(key, values, _accounts(condition, "notValues", namespace))
    if key in _BLOCK_KEYS:
        return Condition(key, _blocks(condition, "values"), _blocks(condition, "notValues"))
    if key in _PORT_KEYS:
        return Condition(key, _ports(condition, "values"), _ports(condition, "notValues"))
    if key in _L7_BLOCK_KEYS:
        blocks, not_blocks = _blocks(condition, "values"), _blocks(condition, "notValues")
        return Condition(key, blocks, not_blocks, beyond_l4=True)
    if key in _L7_KEYS or _L7_KEY_SHAPE.fullmatch(key):
        values, not_values = _strings(condition, "values"), _strings(condition, "notValues")
        return Condition(key, values, not_values, beyond_l4=True)
    raise condition.invalid("key", f"unknown condition {key!r}")


def _beyond(reader: Reader, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _strings(reader, name))


def _listed(reader: Reader, key: str) -> list[tuple[str, int]]:
    found = reader.texts(key)
    if key in reader and not found:
        raise reader.invalid(key, "is an empty list")
    if len(found) > VALUES_MAX:
        raise reader.invalid(key, f"more than {VALUES_MAX} values")
    for text, line in found:
        if not text:
            raise Invalid(f"{reader.where(key)}: an empty value", line)
    return found


def _strings(reader: Reader, key: str) -> tuple[str, ...]:
    return tuple(text for text, _ in _listed(reader, key))


def _blocks(reader: Reader, key: str) -> tuple[CidrBlock, ...]:
    blocks = []
    for text, line in _listed(reader, key):
        try:
            blocks.append(parse_block(text))
        except ValueError as exc:
            message = f"{reader.where(key)}: {text!r} is not an address or CIDR block"
            raise Invalid(message, line) from exc
    return tuple(blocks)


def _ports(reader: Reader, key: str) -> tuple[int, ...]:
    ports = []
    for text, line in _listed(reader, key):
        if not _is_port(text):
            raise Invalid(f"{reader.where(key)}: {text!r} is not a port (1 to 65535)", line)
        ports.append(int(text))
    return tuple(ports)


def _is_port(text: str) -> bool:
    return _PORT.fullmatch(text) is not None and int(text) < 65536


def _accounts(source: Reader, key: str, namespace: str) -> tuple[str, ...]:
    """Each as `namespace/account`."""
    found = _listed(source, key)
    if len(found) > SERVICE_ACCOUNTS_MAX:
        raise source.invalid(key, f"more than {SERVICE_ACCOUNTS_MAX} entries")
    accounts = []
    for text, line in found:
        bad = len(text) > SERVICE_ACCOUNT_CHARS_MAX or "*" in text or text.count("/") > 1
        if bad or text.startswith("/") or text.endswith("/"):
            raise Invalid(f"{source.where(key)}: {text!r} is not namespace/account", line)
        accounts.append(text if "/" in text else f"{namespace}/{text}")
    return tuple(accounts)


def read_peer_authentication(document: Reader, meta: Meta) -> PeerAuthentication:
    document.only(*_TOP)
    spec = document.part("spec")
    spec.only(*_PEER_SPEC)
    selector = _selector(spec)
    ports = spec.part("portLevelMtls")
    if ports.fields and not selector:
        raise spec.invalid("portLevelMtls", "needs a selector")
    port_modes = {}
    for key in ports.fields:
        if not _is_port(key):
            raise ports.invalid(key, "is not a port (1 to 65535)")
        port_modes[int(key)] = _mode(ports.part(key))
    return PeerAuthentication(
        meta=meta,
        selector=selector,
        mode=_mode(spec.part("mtls")),
        port_modes=MappingProxyType(port_modes),
    )


def _mode(mtls: Reader) -> MtlsMode:
    mtls.only("mode")
    text = mtls.text("mode") or "UNSET"
    try:
        return MtlsMode(text)
    except ValueError as exc:
        expected = ", ".join(each.value for each in MtlsMode)
        raise mtls.invalid("mode", f"{text!r} is none of {expected}") from exc


def stand_in(
    document: Reader, key: Key, file: str, why: str
) -> AuthorizationPolicy | PeerAuthentication:
    """Stand-in for a policy that was refused and never was good: it denies.

    Everything that can still be read (scope, action) is kept, so the effect stays where the
    author meant it; an unreadable selector widens it to the namespace.
    """
    meta = _lenient_meta(document, key, file)
    spec = _lenient_spec(document)
    try:
        selector = _selector(spec)
    except Invalid:
        selector = MappingProxyType({})
    if key.kind == "PeerAuthentication":
        may_select = not selector and not _surely_has_no_selector(document)
        ports: Mapping[int, MtlsMode] = MappingProxyType({})
        return PeerAuthentication(meta, selector, MtlsMode.STRICT, ports, why, may_select)
    try:
        # A waypoint's for sure: read again, because an unreadable selector is no missing one.
        targets = () if _selector(spec) else _targets(spec, key.namespace)
    except Invalid:
        targets = ()
    return AuthorizationPolicy(
        meta, _lenient_action(document), selector, (), targets=targets, broken=why
    )


def _lenient_meta(document: Reader, key: Key, file: str) -> Meta:
    empty: Labels = MappingProxyType({})
    annotations = empty
    try:
        annotations = document.part("metadata").labels("annotations")
    except Invalid:
        pass
    return Meta(
        key,
        file,
        document.line(),
        empty,
        annotations,
        uid=uid_of(document),
        generation=generation_of(document, key),
    )


def _lenient_action(document: Reader) -> PolicyAction | None:
    """None if it may be any: it is not written where it belongs, and there is something that we
    cannot read, or nothing at all."""
    fields, spec = document.fields, document.fields.get("spec")
    if spec is None:
        is_all = bool(fields) and all(key in _TOP for key in fields)
        return PolicyAction.ALLOW if is_all else None
    if not isinstance(spec, Fields):
        return None
    if spec.get("action") is None and any(key not in _SPEC for key in spec):
        return None
    try:
        return _action(Reader(spec))
    except Invalid:
        return None


def _surely_has_no_selector(document: Reader) -> bool:
    """True if a PeerAuthentication has none where it belongs, and nothing that we cannot read."""
    fields, spec = document.fields, document.fields.get("spec")
    if spec is None:
        return bool(fields) and all(key in _TOP for key in fields)
    if not isinstance(spec, Fields) or any(key not in _PEER_SPEC for key in spec):
        return False
    try:
        return not _selector(Reader(spec))
    except Invalid:
        return False


def _lenient_spec(document: Reader) -> Reader:
    spec = document.fields.get("spec")
    if isinstance(spec, Fields):
        return Reader(spec, "spec")
    return Reader(Fields(document.line()), "spec")
