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
from ztunnel.mesh.in_force import InForce, PolicySet
from ztunnel.mesh.past import Past

# An open connection is not cut because a policy that its pod names is still under way: until the
# mesh is settled, or for as many spans of the past.
PATIENT_SPANS = 2
AWAITED_MAX = 1024  # names; beyond, nobody is patient
# Lists of names for which the policies are kept in order; beyond, all lists are put in order anew.
NAMED_MAX = 1024

_Names = tuple[str, ...]
_Question = tuple[str, _Names]  # a workload's namespace, and the policies that it names


@dataclass(frozen=True, slots=True)
class Held:
    """`is_substitute`: it could not be understood, and denies."""

    raw: bytes
    policy: Policy
    is_substitute: bool = False

    def entry(self, name: str) -> Entry:
        return Entry(Op.REJECTED_POLICY if self.is_substitute else Op.POLICY, name, self.raw)


@dataclass(slots=True)
class NamedLayer:
    """Policies that some workloads name, as they were when last looked at."""

    layer: PolicySet
    held: dict[str, Held]

    def know(self, name: str, held: Held | None) -> None:
        if self.held.get(name) is held:
            return
        self.layer.drop(name)
        if held is None:
            del self.held[name]
        else:
            self.layer.put(name, held.policy)
            self.held[name] = held


class PolicyBook:
    def __init__(self) -> None:
        self.past: Past[Held] = Past()
        self.unknown = 0  # references to names that have not been sent
        self._held: dict[str, Held] = {}
        self._everywhere = PolicySet()
        self._by_namespace: dict[str, PolicySet] = {}
        self._by_names: dict[_Names, NamedLayer] = {}
        self._answers: dict[_Question, InForce] = {}
        self._past_answers: dict[_Question, InForce] = {}
        self._awaited: dict[str, int] = {}  # names that are missing → spans since
        self._is_recording = False

    def __len__(self) -> int:
        return len(self._held)

    # Changes

    def put(self, name: str, raw: bytes) -> bool:
        """True if it differs from the one before. WireError, with nothing changed, when it cannot
        be understood."""
        held = self._held.get(name)
        if held is not None and held.raw == raw and not held.is_substitute:
            return False
        try:
            message = security_pb2.Authorization.FromString(raw)
        except DecodeError as exc:
            raise WireError(str(exc)) from exc
        if f"{message.namespace}/{message.name}" != name:
            raise WireError(f"a policy named {message.namespace}/{message.name}")
        self._hold(name, Held(raw, policy_from_wire(message)))
        return True

    def deny_instead(self, name: str, raw: bytes) -> bool:
        """Put a substitute in place of a refused policy. True if the policies in force change."""
        policy = substitute_for(name, raw)
        held = self._held.get(name)
        if (
            held is not None
            and not held.is_substitute
            and (policy.dry_run or _stands_for(held.policy, policy))
        ):
            return False
        self._hold(name, Held(raw, policy, is_substitute=True))
        return True

    def drop(self, name: str) -> bool:
        if name not in self._held:
            return False
        self._leave(name)
        self.past.drop_trace(name)
        return True

    def _hold(self, name: str, held: Held) -> None:
        self._leave(name)
        self._held[name] = held
        self._awaited.pop(name, None)
        policy = held.policy
        if policy.scope is PolicyScope.GLOBAL:
            self._everywhere.put(name, policy)
        elif policy.scope is PolicyScope.NAMESPACE:
            self._by_namespace.setdefault(policy.namespace, PolicySet()).put(name, policy)

    def _leave(self, name: str) -> None:
        held = self._held.pop(name, None)
        if self._is_recording:
            self.past.note(name, held)
        self._forget_answers()
        self._everywhere.drop(name)
        namespace = name.partition("/")[0]
        layer = self._by_namespace.get(namespace)
        if layer is not None:
            layer.drop(name)
            if not len(layer):
                del self._by_namespace[namespace]

    def _forget_answers(self) -> None:
        self._answers.clear()
        self._past_answers.clear()

    def settle(self) -> bool:
        """Forget how it was: what is held now is whole. True if patience with a missing policy ends
        with it."""
        self._is_recording = True
        self.past.settle()
        self._forget_answers()
        awaited, self._awaited = self._awaited, {}
        return bool(awaited)

    def move_on(self) -> bool:
        """Forget the older span of the past; true as for `settle()`."""
        self.past.move_on()
        self._forget_answers()
        for name in self._awaited:
            self._awaited[name] += 1
        return PATIENT_SPANS in self._awaited.values()

    # Questions

    def get(self, name: str) -> Policy | None:
        held = self._held.get(name)
        return None if held is None else held.policy

    def all(self) -> Iterator[Policy]:
        return (held.policy for held in self._held.values())

    def in_force(self, namespace: str, named: _Names) -> InForce:
        """Policies of a workload: of the whole mesh, of its namespace, and the named ones."""
        question = (namespace, named)
        answer = self._answers.get(question)
        if answer is None:
            layer, missing = self._named(named)
            for name in named:
                if name not in self._held:
                    self._await(name)
            self.unknown += len(missing)
            answer = self._answers[question] = InForce(self._layers(namespace, layer), missing)
        return answer

    def policies(self, namespace: str, named: _Names) -> tuple[Policy, ...]:
        """All of them, each once, for people and for whoever asks for more than a verdict."""
        found: dict[str, Policy] = {}
        for layer in self.in_force(namespace, named).layers:
            found.update(layer.by_name)
        return tuple(found.values())

    def _layers(self, namespace: str, named: PolicySet) -> tuple[PolicySet, ...]:
        layers = (self._everywhere, self._by_namespace.get(namespace), named)
        return tuple(each for each in layers if each is not None and len(each))

    def _named(self, names: _Names) -> tuple[PolicySet, _Names]:
        """The layer of these names, brought up to date, and the names that are missing. One that
        has gone stays for whoever still names it: the word about the workload may be under way."""
        known = self._by_names.get(names)
        if known is None:
            if len(self._by_names) >= NAMED_MAX:
                self._by_names.clear()
            known = self._by_names[names] = NamedLayer(PolicySet(), {})
        missing: list[str] = []
        for name in names:
            held = self._held.get(name)
            if held is None:
                held = self.past.was(name, None)
            if held is None:
                missing.append(name)
            known.know(name, held)
        return known.layer, tuple(missing)

    def _await(self, name: str) -> None:
        if len(self._awaited) < AWAITED_MAX:
            self._awaited.setdefault(name, 0)

    def is_awaited(self, names: _Names) -> bool:
        """True if all of these may still come, as far as open connections are concerned."""
        return all(self._awaited.get(name, PATIENT_SPANS) < PATIENT_SPANS for name in names)

    def before(self, namespace: str, named: _Names) -> InForce:
        """Policies that a workload had when the mesh was last settled."""
        question = (namespace, named)
        answer = self._past_answers.get(question)
        if answer is None:
            answer = self._past_answers[question] = self._find_before(namespace, named)
        return answer

    def _find_before(self, namespace: str, named: _Names) -> InForce:
        """All that has not changed, and the rest as it was."""
        changed, was = frozenset(self.past.names()), PolicySet()
        for name in changed:
            held = self.past.was(name, None)
            if held is not None and (name in named or _reaches(held.policy, namespace)):
                was.put(name, held.policy)
        layer, _ = self._named(named)
        return InForce(self._layers(namespace, layer), (), changed, was)

    def entries_before(self) -> Iterator[Entry]:
        """Entries that bring an empty book to how this one was when it was last settled."""
        for name in dict.fromkeys((*self._held, *self.past.names())):
            held = self.past.was(name, self._held.get(name))
            if held is not None:
                yield held.entry(name)

    def entries_since(self) -> Iterator[Entry]:
        """Everything that has changed since."""
        for name in self.past.names():
            held = self._held.get(name)
            yield Entry(Op.REMOVE_POLICY, name) if held is None else held.entry(name)


def _reaches(policy: Policy, namespace: str) -> bool:
    """True if it applies to workloads of a namespace that do not name it."""
    if policy.scope is PolicyScope.NAMESPACE:
        return policy.namespace == namespace
    return policy.scope is PolicyScope.GLOBAL


def _stands_for(good: Policy, refused: Policy) -> bool:
    """True if the last good version is in force wherever the refused one would be.

    It is not if the policy has lost its selector, because no workload names it any more, and not
    if it was a dry run.
    """
    return good.scope.value <= refused.scope.value and not good.dry_run


def substitute_for(name: str, raw: bytes) -> Policy:
    """Substitute for a policy that was refused: deny, as widely as it could have reached.

    A dry run refuses nothing, and its substitute does nothing: it is there for those who name it.
    When not even the scope can be read, the namespace in the name is what it could have reached.
    """
    namespace, _, short = name.partition("/")
    scope, dry_run = PolicyScope.NAMESPACE, False
    try:
        message = security_pb2.Authorization.FromString(raw)
        dry_run = message.dry_run
        if message.name:
            scope = PolicyScope(message.scope)
    except (DecodeError, ValueError):
        pass  # a scope from the future, or no message at all: the namespace it is
    return Policy(short, namespace, scope, Action.DENY, () if dry_run else (Rule(),), dry_run)
