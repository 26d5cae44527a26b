"""The policies of the mesh by scope, and those that apply to a workload. No I/O.

Policies are decoded when they arrive: they are few, and one that cannot be understood must be
noticed at once. Its last good version stays in force; without one, a substitute denies everything
that it could have reached.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from google.protobuf.message import DecodeError

from control.kit.errors import WireError
from control.model.policy import Action, Policy, PolicyScope, Rule
from control.wire import security_pb2
from control.wire.convert_policy import policy_from_wire
from ztunnel.mesh.entries import Entry, Op


@dataclass(frozen=True, slots=True)
class _Held:
    raw: bytes
    policy: Policy


class PolicyBook:
    def __init__(self) -> None:
        self.unknown = 0  # references to names that have not been sent (yet)
        self._held: dict[str, _Held] = {}
        self._substitutes: set[str] = set()  # names of policies held only as "deny all"
        self._everywhere: dict[str, None] = {}
        self._by_namespace: dict[str, dict[str, None]] = {}
        self._answers: dict[tuple[str, tuple[str, ...]], tuple[Policy, ...]] = {}

    def __len__(self) -> int:
        return len(self._held)

    def put(self, name: str, raw: bytes) -> None:
        """WireError, with nothing changed, when it cannot be understood."""
        try:
            message = security_pb2.Authorization.FromString(raw)
        except DecodeError as exc:
            raise WireError(str(exc)) from exc
        if f"{message.namespace}/{message.name}" != name:
            raise WireError(f"a policy named {message.namespace}/{message.name}")
        policy = policy_from_wire(message)
        self._substitutes.discard(name)
        self._hold(name, raw, policy)

    def deny_instead(self, name: str, raw: bytes) -> bool:
        """Put a substitute in place of a refused policy. True if the policies in force change."""
        policy = deny_all(name, raw)
        if name in self._held and name not in self._substitutes:
            if policy is None or _stands_for(self._held[name].policy, policy):
                return False
        elif policy is None:
            return self.drop(name)
        self._substitutes.add(name)
        self._hold(name, raw, policy)
        return True

    def _hold(self, name: str, raw: bytes, policy: Policy) -> None:
        self._forget_scope(name)
        self._held[name] = _Held(raw, policy)
        if policy.scope is PolicyScope.GLOBAL:
            self._everywhere[name] = None
        elif policy.scope is PolicyScope.NAMESPACE:
            self._by_namespace.setdefault(policy.namespace, {})[name] = None

    def drop(self, name: str) -> bool:
        if self._held.pop(name, None) is None:
            return False
        self._substitutes.discard(name)
        self._forget_scope(name)
        return True

    def _forget_scope(self, name: str) -> None:
        self._answers.clear()
        self._everywhere.pop(name, None)
        namespace = name.partition("/")[0]
        names = self._by_namespace.get(namespace)
        if names is not None:
            names.pop(name, None)
            if not names:
                del self._by_namespace[namespace]

    def get(self, name: str) -> Policy | None:
        held = self._held.get(name)
        return None if held is None else held.policy

    def all(self) -> Iterator[Policy]:
        return (held.policy for held in self._held.values())

    def entries(self) -> Iterator[Entry]:
        for name, held in self._held.items():
            op = Op.REJECTED_POLICY if name in self._substitutes else Op.POLICY
            yield Entry(op, name, held.raw)

    def applicable(self, namespace: str, named: tuple[str, ...]) -> tuple[Policy, ...]:
        """Policies of a workload: of the whole mesh, of its namespace, and the named ones."""
        question = (namespace, named)
        answer = self._answers.get(question)
        if answer is None:
            answer = self._answers[question] = tuple(self._find(namespace, named))
        return answer

    def _find(self, namespace: str, named: tuple[str, ...]) -> Iterator[Policy]:
        names = dict(self._everywhere)
        names.update(self._by_namespace.get(namespace, {}))
        names.update(dict.fromkeys(named))
        for name in names:
            policy = self.get(name)
            if policy is None:
                self.unknown += 1
            else:
                yield policy


def _stands_for(good: Policy, refused: Policy) -> bool:
    """True if the last good version is in force wherever the refused one would be.

    It is not if the policy has lost its selector, because no workload names it any more, and not
    if it was a dry run.
    """
    return good.scope.value <= refused.scope.value and not good.dry_run


def deny_all(name: str, raw: bytes) -> Policy | None:
    """Substitute for a policy that was refused: deny, as widely as it could have reached.

    None for a dry run, which never refuses anything. When not even the scope can be read, the
    namespace in the name is what it could have reached.
    """
    namespace, _, short = name.partition("/")
    scope = PolicyScope.NAMESPACE
    try:
        message = security_pb2.Authorization.FromString(raw)
        if message.dry_run:
            return None
        if message.name:
            scope = PolicyScope(message.scope)
    except (DecodeError, ValueError):
        pass  # a scope from the future, or no message at all: the namespace it is
    return Policy(short, namespace, scope, Action.DENY, (Rule(),))
