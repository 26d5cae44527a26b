"""Small model of layer-4 policy: the answer that a mesh owes to each connection.

Slow and obvious on purpose. It is written from the semantics of Istio's ambient mode, reads YAML
objects alone, and shares no code with the product. Each method is one sentence of that description,
so that a test can plant a fault by overriding it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tests.fuzz import policy_form as form
from tests.fuzz.policy_contents import (
    Authorization,
    Contents,
    IpAddress,
    Peers,
    PodOf,
    canonical,
)
from tests.fuzz.policy_endpoints import ports_by_slices, slices_of
from tests.fuzz.policy_form import Tree
from tests.fuzz.policy_found import DEFAULT_NAMESPACE

# Ports of the tunnel itself; a connection to them would only come round again.
TUNNEL_PORT = 15008
# Names of the policies that a PeerAuthentication becomes.
STATIC_STRICT = "istio_converted_static_strict"
CONVERTED = "converted_peer_authentication_"


@dataclass(frozen=True)
class Call:
    """One connection that somebody opens to a pod."""

    pod: tuple[str, str]  # namespace, name
    to: str  # the pod's address at which it arrives
    port: int  # for plaintext; a CONNECT says its own
    source: str  # address of the caller
    identity: tuple[str, str, str] | None = None  # trust domain, namespace, service account
    authority: str = ""  # a caller without an identity sends no CONNECT


@dataclass(frozen=True)
class Expected:
    """`status` as for a CONNECT; `named` holds the policies that the answer may give as reason."""

    status: int
    port: int = 0  # where the pod is dialled, if it is
    named: frozenset[str] = frozenset()
    would_deny: bool = False


@dataclass(frozen=True)
class Connection:
    identity: tuple[str, str, str] | None
    source: IpAddress
    to: IpAddress
    port: int


class Model(Contents):
    # Policies of a pod

    def is_for_us(self, policy: Authorization) -> bool:
        """Waypoints have their own, only ALLOW and DENY are known, dry runs have a switch."""
        if policy.has_targets or policy.action in ("CUSTOM", "AUDIT"):
            return False
        return self.options.dry_run or not policy.dry_run

    def applies(self, policy: Authorization, pod: PodOf) -> bool:
        """Policies of the root namespace reach every namespace, others their own."""
        if policy.namespace not in (self.options.root, pod.namespace):
            return False
        return self.selects(policy.selector, pod)

    def selects(self, selector: Mapping[str, str], pod: PodOf) -> bool:
        return all(pod.labels.get(name) == wanted for name, wanted in selector.items())

    def policies_of(self, pod: PodOf) -> list[Authorization]:
        return [
            each
            for each in self.now.authorizations.values()
            if self.is_for_us(each) and self.applies(each, pod)
        ]

    def garble(self, names: Iterable[str]) -> None:
        """Policies that reached the node in a form that it does not know, at this very step.

        The version before stays, if it reaches at least as far as the new one; otherwise nobody is
        let in where the new one applies. A dry run never refuses anybody.
        """
        for name in names:
            new, old = self.now.authorizations.get(name), self._before.authorizations.get(name)
            if new is None:
                continue  # it would be denied here, and is not known to the model at all
            if old is not None and not self.stands_for(old, new):
                old = None
            if old is None and new.dry_run:
                del self.now.authorizations[name]
                continue
            if old is None:
                new.rules, new.action = None, "?"
                continue
            # A node finds a policy with a selector by the workloads that name it.
            if not old.selector:
                new.selector = {}
            new.rules, new.action, new.dry_run = old.rules, old.action, old.dry_run

    def stands_for(self, old: Authorization, new: Authorization) -> bool:
        held = self.is_for_us(old) and not (old.dry_run and not new.dry_run)
        return held and self.scope(old) >= self.scope(new)

    def scope(self, policy: Authorization) -> int:
        """0 for those that a selector chooses, 1 for a namespace, 2 for all of them."""
        if policy.selector:
            return 0
        return 2 if policy.namespace == self.options.root else 1

    # Mutual TLS

    def is_strict(self, pod: PodOf, port: int) -> bool:
        """Mode at one port of a pod: port over workload over namespace over mesh."""
        mode = "PERMISSIVE"
        for level in self.levels(pod):
            if level is not None and level.mode != "UNSET":
                mode = level.mode
        own = self.levels(pod)[-1]
        if own is not None and own.ports.get(port, "UNSET") != "UNSET":
            mode = own.ports[port]
        return mode == "STRICT"

    def levels(self, pod: PodOf) -> tuple[Peers | None, Peers | None, Peers | None]:
        """Those in force for the mesh, the namespace and the workload: the oldest of each."""
        root = self.options.root
        mesh = [each for each in self.now.peers if each.namespace == root and not each.selector]
        own = [each for each in self.now.peers if each.namespace == pod.namespace != root]
        return (
            self.oldest(mesh),
            self.oldest([each for each in own if not each.selector]),
            self.oldest(
                [
                    each
                    for each in own
                    if each.may_select or (each.selector and self.selects(each.selector, pod))
                ]
            ),
        )

    def oldest(self, several: list[Peers]) -> Peers | None:
        return min(several, key=lambda each: each.age, default=None)

    # One connection

    def answer(self, call: Call) -> Expected | None:
        """None if there is no such pod."""
        pod = self.now.pods.get(call.pod)
        if pod is None:
            return None
        port = call.port
        if call.identity is not None:
            asked = self.port_of(call, pod)
            if isinstance(asked, Expected):
                return asked
            port = asked
        if port == TUNNEL_PORT:
            return Expected(503)
        to, source = canonical(call.to), canonical(call.source)
        return self.decide(pod, Connection(call.identity, source, to, port))

    def port_of(self, call: Call, pod: PodOf) -> int | Expected:
        """Port of the pod that a CONNECT asks for: by its own address, or by a service of it."""
        host, colon, text = call.authority.rpartition(":")
        if not colon or not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
            return Expected(400)
        bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        try:
            address = canonical(bare)
        except ValueError:
            return self.service_port(host, int(text), pod)
        if (":" in bare) != (bare != host):
            return Expected(400)
        return int(text) if address == canonical(call.to) else Expected(400)

    def service_port(self, host: str, number: int, pod: PodOf) -> int | Expected:
        if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", host):
            return Expected(400)
        if re.fullmatch("[0-9.]+", host):
            return Expected(400)
        for service in self.now.services:
            meta, spec = service["metadata"], service.get("spec") or {}
            namespace = meta.get("namespace") or DEFAULT_NAMESPACE
            name = f"{meta['name']}.{namespace}.svc.cluster.local"
            if name != host.lower() or spec.get("type") == "ExternalName":
                continue
            if slices_of(self.now, service):
                return self.sliced_port(service, number, pod)
            chosen = {key: value or "" for key, value in (spec.get("selector") or {}).items()}
            if not chosen or pod.namespace != namespace or not self.selects(chosen, pod):
                return Expected(400)
            for each in spec.get("ports") or []:
                if each["port"] == number:
                    target = each.get("targetPort") or number
                    found = pod.ports.get(target) if isinstance(target, str) else target
                    return found or Expected(503)
            return Expected(503)
        return Expected(503)

    def sliced_port(self, service: Tree, number: int, pod: PodOf) -> int | Expected:
        ports = ports_by_slices(self.now, service, pod)
        if ports is None:
            return Expected(400)
        return ports.get(number) or Expected(503)

    def decide(self, pod: PodOf, connection: Connection) -> Expected:
        """Deny first, then allow, and open where no policy allows anything."""
        policies = self.policies_of(pod)
        real = [each for each in policies if not each.dry_run]
        denies = self.matching(real, "DENY", connection)
        if connection.identity is None and self.is_strict(pod, connection.port):
            denies.add(STATIC_STRICT)
        if denies:
            return Expected(401, named=frozenset(denies))
        allows = self.matching(real, "ALLOW", connection)
        if any(each.action == "ALLOW" for each in real) and not allows:
            return Expected(401)
        return Expected(
            200, connection.port, frozenset(allows), self.would_deny(policies, connection)
        )

    def would_deny(self, policies: list[Authorization], connection: Connection) -> bool:
        dry = [each for each in policies if each.dry_run]
        if self.matching(dry, "DENY", connection):
            return True
        allows = any(each.action == "ALLOW" for each in dry)
        return allows and not self.matching(dry, "ALLOW", connection)

    def matching(
        self, policies: list[Authorization], action: str, connection: Connection
    ) -> set[str]:
        """A policy of unknown action denies, because it may have been meant to."""
        return {
            each.key
            for each in policies
            if (each.action if each.action == "ALLOW" else "DENY") == action
            and self.policy_matches(each, connection)
        }

    def policy_matches(self, policy: Authorization, connection: Connection) -> bool:
        """Any rule; none without rules. A stand-in allows nothing, and denies everything."""
        if policy.rules is None:
            return policy.action != "ALLOW"
        return any(self.rule_matches(policy, rule, connection) for rule in policy.rules)

    def rule_matches(self, policy: Authorization, rule: Tree, connection: Connection) -> bool:
        """All of `from`, `to` and each `when` that is there. Layer 7 widens a DENY, never an
        ALLOW."""
        if policy.action == "ALLOW" and self.needs_layer_7(rule):
            return False
        account = policy.namespace
        clauses: list[bool] = []
        if rule.get("from"):
            sources = [each["source"] for each in rule["from"]]
            clauses.append(any(self.source_matches(each, account, connection) for each in sources))
        if rule.get("to"):
            operations = [each["operation"] for each in rule["to"]]
            clauses.append(any(self.operation_matches(each, connection) for each in operations))
        conditions = rule.get("when") or []
        clauses += [self.condition_matches(each, account, connection) for each in conditions]
        return self.rule_holds(clauses)

    def rule_holds(self, clauses: list[bool]) -> bool:
        return all(clauses)

    def needs_layer_7(self, rule: Tree) -> bool:
        sources = [each["source"] for each in rule.get("from") or []]
        operations = [each["operation"] for each in rule.get("to") or []]
        return (
            any(each.get(name) for each in sources for name in form.SOURCE_LAYER_7)
            or any(each.get(name) for each in operations for name in form.OPERATION_LAYER_7)
            or any(form.is_layer_7(each["key"]) for each in rule.get("when") or [])
        )

    def source_matches(self, source: Tree, namespace: str, connection: Connection) -> bool:
        names = {
            "principals": "source.principal",
            "namespaces": "source.namespace",
            "serviceAccounts": "source.serviceAccount",
            "ipBlocks": "source.ip",
        }
        fields = [
            (key, source.get(name) or [], source.get(negative(name)) or [])
            for name, key in names.items()
        ]
        return self.fields_match(fields, namespace, connection)

    def operation_matches(self, operation: Tree, connection: Connection) -> bool:
        ports, not_ports = operation.get("ports") or [], operation.get("notPorts") or []
        return self.fields_match([("destination.port", ports, not_ports)], "", connection)

    def condition_matches(self, condition: Tree, namespace: str, connection: Connection) -> bool:
        values, not_values = condition.get("values") or [], condition.get("notValues") or []
        if form.is_layer_7(condition["key"]):
            values = not_values = []
        return self.fields_match([(condition["key"], values, not_values)], namespace, connection)

    def fields_match(
        self,
        fields: list[tuple[str, list[str], list[str]]],
        namespace: str,
        connection: Connection,
    ) -> bool:
        """All fields that are there; where nothing is there, nothing matches."""
        there = [each for each in fields if each[1] or each[2]]
        return self.nothing_matches_not(there) and all(
            self.field_matches(self.test_of(key, namespace, connection), values, not_values)
            for key, values, not_values in there
        )

    def nothing_matches_not(self, there: list[tuple[str, list[str], list[str]]]) -> bool:
        return bool(there)

    def field_matches(
        self, test: Callable[[str], bool], values: list[str], not_values: list[str]
    ) -> bool:
        """Any of the values, if there are any, and none of the others."""
        if values and not any(test(each) for each in values):
            return False
        return not any(test(each) for each in not_values)

    def test_of(self, key: str, namespace: str, connection: Connection) -> Callable[[str], bool]:
        """Test of one value. No identity: it equals nothing."""
        match key:
            case "source.ip":
                return lambda value: self.block_holds(value, connection.source)
            case "destination.ip":
                return lambda value: self.block_holds(value, connection.to)
            case "destination.port":
                return lambda value: self.port_is(value, connection.port)
        if connection.identity is None:
            return self.nobody
        domain, theirs, account = connection.identity
        match key:
            case "source.namespace":
                return lambda value: self.text_is(value, theirs)
            case "source.principal":
                return lambda value: self.text_is(value, f"{domain}/ns/{theirs}/sa/{account}")
            case _:
                return lambda value: self.account_is(value, namespace, theirs, account)

    def nobody(self, value: str) -> bool:
        return False

    def text_is(self, pattern: str, actual: str) -> bool:
        if pattern == "*":
            return actual != ""
        if pattern.startswith("*"):
            return actual.endswith(pattern[1:])
        if pattern.endswith("*"):
            return actual.startswith(pattern[:-1])
        return actual == pattern

    def account_is(self, value: str, namespace: str, theirs: str, account: str) -> bool:
        full = value if "/" in value else f"{namespace}/{value}"
        return full == f"{theirs}/{account}"

    def port_is(self, value: str, actual: int) -> bool:
        return int(value) == actual

    def block_holds(self, value: str, actual: IpAddress) -> bool:
        """Bits behind the prefix do not count; a mapped block is one of IPv4."""
        head, _, length = value.partition("/")
        address = canonical(head)
        bits = int(length) if length else address.max_prefixlen
        if length and address.version == 4 and ":" in head:
            bits -= 96
        shift = address.max_prefixlen - bits
        return address.version == actual.version and int(address) >> shift == int(actual) >> shift


def negative(name: str) -> str:
    """`ipBlocks` → `notIpBlocks`."""
    return "not" + name[0].upper() + name[1:]
