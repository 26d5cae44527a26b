"""Planted faults: ways to get policy wrong, each of which the fuzzer has to see.

A fault in the model is as good as the same fault in the product: the two disagree in the same
cases. The way from the manifests to the node, which no model has, is `policy_node_faults`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tests.fuzz import policy_form as form
from tests.fuzz.policy_contents import (
    Authorization,
    IpAddress,
    Peers,
    PodOf,
    canonical,
)
from tests.fuzz.policy_form import Tree
from tests.fuzz.policy_found import Found, Key
from tests.fuzz.policy_model import Call, Connection, Expected, Model

# Faults in what a match means


class DropsNotPorts(Model):
    def operation_matches(self, operation: Tree, connection: Connection) -> bool:
        return super().operation_matches({**operation, "notPorts": None}, connection)


class DropsNegativeValues(Model):
    def field_matches(
        self, test: Callable[[str], bool], values: list[str], not_values: list[str]
    ) -> bool:
        return super().field_matches(test, values, [])


class NeedsEveryValue(Model):
    def field_matches(
        self, test: Callable[[str], bool], values: list[str], not_values: list[str]
    ) -> bool:
        return all(test(each) for each in values) and not any(test(each) for each in not_values)


class PrefixIsExact(Model):
    def text_is(self, pattern: str, actual: str) -> bool:
        return super().text_is(pattern.removesuffix("*") if len(pattern) > 1 else pattern, actual)


class SuffixIsPrefix(Model):
    def text_is(self, pattern: str, actual: str) -> bool:
        if len(pattern) > 1 and pattern.startswith("*"):
            return actual.startswith(pattern[1:])
        return super().text_is(pattern, actual)


class InnerStarMatches(Model):
    def text_is(self, pattern: str, actual: str) -> bool:
        head, star, tail = pattern.partition("*")
        if star and head and tail:
            return actual.startswith(head) and actual.endswith(tail)
        return super().text_is(pattern, actual)


class CaseDoesNotCount(Model):
    def text_is(self, pattern: str, actual: str) -> bool:
        return super().text_is(pattern.lower(), actual.lower())


class SchemeIsCutOff(Model):
    def text_is(self, pattern: str, actual: str) -> bool:
        return super().text_is(pattern.removeprefix("spiffe://"), actual)


class TrustDomainDoesNotCount(Model):
    def text_is(self, pattern: str, actual: str) -> bool:
        return super().text_is(
            pattern.partition("/")[2] or pattern, actual.partition("/")[2] or actual
        )


class AccountOfAnyNamespace(Model):
    def account_is(self, value: str, namespace: str, theirs: str, account: str) -> bool:
        return super().account_is(value, theirs, theirs, account)


class NobodyIsEverybody(Model):
    def nobody(self, value: str) -> bool:
        return True


class BitsBehindThePrefixCount(Model):
    def block_holds(self, value: str, actual: IpAddress) -> bool:
        head, _, length = value.partition("/")
        exact = bool(length) and int(canonical(head)) % 4 == 3
        return (canonical(head) == actual) if exact else super().block_holds(value, actual)


class MappedBlockIsIpv6(Model):
    def block_holds(self, value: str, actual: IpAddress) -> bool:
        return not value.startswith("::ffff:") and super().block_holds(value, actual)


class EmptyBlockHoldsBothFamilies(Model):
    def block_holds(self, value: str, actual: IpAddress) -> bool:
        return value.endswith("/0") or super().block_holds(value, actual)


class EmptyMatchMatches(Model):
    def nothing_matches_not(self, there: list[tuple[str, list[str], list[str]]]) -> bool:
        return True


class AnyClauseIsEnough(Model):
    def rule_holds(self, clauses: list[bool]) -> bool:
        return any(clauses) or not clauses


class EmptyRuleNeverMatches(Model):
    def rule_holds(self, clauses: list[bool]) -> bool:
        return bool(clauses) and all(clauses)


class Layer7RuleIsKept(Model):
    def needs_layer_7(self, rule: Tree) -> bool:
        return False


class ConditionsAreSkipped(Model):
    def rule_matches(self, policy: Authorization, rule: Tree, connection: Connection) -> bool:
        return super().rule_matches(policy, {**rule, "when": None}, connection)


# Faults in which policies there are, and what they add up to


class IgnoresDeny(Model):
    def matching(
        self, policies: list[Authorization], action: str, connection: Connection
    ) -> set[str]:
        return set() if action == "DENY" else super().matching(policies, action, connection)


class AllowBeatsDeny(Model):
    def decide(self, pod: PodOf, connection: Connection) -> Expected:
        real = [each for each in self.policies_of(pod) if not each.dry_run]
        allows = self.matching(real, "ALLOW", connection)
        if allows:
            return Expected(200, connection.port, frozenset(allows))
        return super().decide(pod, connection)


class UnmatchedAllowIsOpen(Model):
    def decide(self, pod: PodOf, connection: Connection) -> Expected:
        found = super().decide(pod, connection)
        return Expected(200, connection.port) if found == Expected(401) else found


class SelectorIsIgnored(Model):
    def selects(self, selector: Any, pod: PodOf) -> bool:
        return True


class AnyLabelIsEnough(Model):
    def selects(self, selector: Any, pod: PodOf) -> bool:
        hits = [pod.labels.get(name) == wanted for name, wanted in selector.items()]
        return any(hits) or not hits


class RootPoliciesStayAtHome(Model):
    def applies(self, policy: Authorization, pod: PodOf) -> bool:
        return policy.namespace == pod.namespace and super().applies(policy, pod)


class PoliciesReachEveryNamespace(Model):
    def applies(self, policy: Authorization, pod: PodOf) -> bool:
        return self.selects(policy.selector, pod)


class DryRunIsEnforced(Model):
    def is_for_us(self, policy: Authorization) -> bool:
        policy.dry_run = False
        return super().is_for_us(policy)


class DryRunNeedsNoSwitch(Model):
    def is_for_us(self, policy: Authorization) -> bool:
        return not policy.has_targets and policy.action not in ("CUSTOM", "AUDIT")


class AuditAllows(Model):
    def is_for_us(self, policy: Authorization) -> bool:
        if policy.action == "AUDIT":
            policy.action = "ALLOW"
        return super().is_for_us(policy)


class WaypointPoliciesAreOurs(Model):
    def is_for_us(self, policy: Authorization) -> bool:
        policy.has_targets = False
        return super().is_for_us(policy)


# Faults in mutual TLS


class StrictIsNotAsked(Model):
    def is_strict(self, pod: PodOf, port: int) -> bool:
        return False


class PortModesAreIgnored(Model):
    def is_strict(self, pod: PodOf, port: int) -> bool:
        return super().is_strict(pod, 0)


class DisabledPortStaysStrict(Model):
    def is_strict(self, pod: PodOf, port: int) -> bool:
        own = self.levels(pod)[-1]
        if own is not None and own.ports.get(port) == "DISABLE":
            port = 0
        return super().is_strict(pod, port)


class YoungestWins(Model):
    def oldest(self, several: list[Peers]) -> Peers | None:
        return max(several, key=lambda each: each.age, default=None)


class UnsetInheritsNothing(Model):
    def levels(self, pod: PodOf) -> tuple[Peers | None, Peers | None, Peers | None]:
        mesh, namespace, own = super().levels(pod)
        return None if namespace or own else mesh, None if own else namespace, own


class SelectorsWorkInTheRoot(Model):
    def levels(self, pod: PodOf) -> tuple[Peers | None, Peers | None, Peers | None]:
        mesh, namespace, own = super().levels(pod)
        everywhere = [
            each
            for each in self.now.peers
            if each.namespace == self.options.root
            if each.selector and self.selects(each.selector, pod)
        ]
        return mesh, namespace, own or self.oldest(everywhere)


# Faults with what cannot be understood


class LastGoodIsForgotten(Model):
    def last_good(self, key: Key) -> Tree | None:
        return None


class NobodyStandsIn(Model):
    def stand_in(self, key: Key, tree: Tree) -> None:
        pass


class BrokenDenyIsAnEmptyAllow(Model):
    def policy_matches(self, policy: Authorization, connection: Connection) -> bool:
        return policy.rules is not None and super().policy_matches(policy, connection)


class BrokenSelectorSelectsNobody(Model):
    def stand_in(self, key: Key, tree: Tree) -> None:
        spec = tree.get("spec") if isinstance(tree.get("spec"), dict) else {}
        if not form.selector(spec.get("selector") or {}):
            super().stand_in(key, tree)


class LastOfAKeyCounts(Model):
    def first_of_each_key(self) -> Iterable[Found]:
        files, self._files = self._files, {}
        for number, name in enumerate(sorted(files, reverse=True)):
            self._files[f"{number:03}"] = files[name]
        yield from super().first_of_each_key()
        self._files = files


class DamageIsNotNoticed(Model):
    def garble(self, names: Iterable[str]) -> None:
        pass


class LastGoodStandsForMore(Model):
    def stands_for(self, old: Authorization, new: Authorization) -> bool:
        return self.is_for_us(old)


# Faults in what a CONNECT asks for


class ServicePortIsThePodsPort(Model):
    def service_port(self, host: str, number: int, pod: PodOf) -> int | Expected:
        found = super().service_port(host, number, pod)
        return found if isinstance(found, Expected) else number


class SlicesLeadNowhere(Model):
    def sliced_port(self, service: Tree, number: int, pod: PodOf) -> int | Expected:
        return Expected(400)


class AnyAuthorityWillDo(Model):
    def port_of(self, call: Call, pod: PodOf) -> int | Expected:
        found = super().port_of(call, pod)
        return call.port if found == Expected(400) else found


MODEL_FAULTS: tuple[type[Model], ...] = tuple(
    each
    for each in globals().values()
    if isinstance(each, type) and issubclass(each, Model) and each is not Model
)
