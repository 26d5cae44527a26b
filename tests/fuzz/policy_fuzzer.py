"""Product and model side by side: the same folders and calls, and the first disagreement.

A case is one call to one mesh.
"""

from __future__ import annotations

import copy
import random
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.fuzz.policy_chain import Answer, Chain, policies_of, texts
from tests.fuzz.policy_contents import Options
from tests.fuzz.policy_damage import damaged
from tests.fuzz.policy_model import CONVERTED, STATIC_STRICT, Call, Expected, Model
from tests.fuzz.policy_worlds import Before, Scenario


@dataclass(frozen=True)
class Disagreement:
    """`kind` stays the same while a scenario shrinks; `detail` is for people."""

    kind: str
    detail: str
    step: int
    call: Call | None = None


@dataclass
class Tally:
    """Cases by the model's answer: a fuzzer that only sees refusals sees nothing."""

    cases: int = 0
    meshes: int = 0
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, other: Tally) -> None:
        self.cases += other.cases
        self.meshes += other.meshes
        self.answers += other.answers


def compare(
    scenario: Scenario,
    make_model: Callable[[Options], Model] = Model,
    make_chain: Callable[[Options], Chain] = Chain,
    tally: Tally | None = None,
    *,
    between: bool = False,
) -> Disagreement | None:
    """The first disagreement of one scenario. `between` looks into updates that are half way: what
    the folder before and the folder after both refuse has to be refused all the time, in our
    control plane's order and in any other."""
    model, chain = make_model(scenario.options), make_chain(scenario.options)
    before: dict[str, list[object] | None] = {}
    tally = tally or Tally()
    for index, step in enumerate(scenario.steps):
        tally.meshes += 1
        match step.before:
            case Before.RECONNECT:
                chain.reconnect()
            case Before.RESTART:
                chain.restart()
                model.forget()
                before = {}
        old = copy.copy(model)
        model.load(step.files)
        holes: list[Disagreement] = []
        if between and index and not step.damage:
            refused = _refused(old, model, step.calls)
            chain.watch(partial(_look, refused, chain, index, holes), _order(step.calls))
        damage = {name: partial(damaged, number=each) for name, each in step.damage.items()}
        try:
            garbled = chain.step(texts(step.files, before), damage)
        except Exception as exc:
            return Disagreement("crash", f"{type(exc).__name__}: {exc}", index)
        chain.watch(None)
        if holes:
            return holes[0]
        before = step.files
        model.garble(garbled)
        expected = sorted(model.problems)
        actual = sorted(chain.policy_problems())
        if expected != actual:
            return Disagreement("problems", f"expected {expected}, not {actual}", index)
        found = _states(model, chain, garbled=bool(garbled))
        if found:
            return Disagreement("state", found, index)
        for call in step.calls:
            found = _call(model, chain, call, tally)
            if found:
                return Disagreement(*found, index, call)
    return None


def _order(calls: list[Call]) -> random.Random | None:
    """For half of the steps any order, for the others that of our control plane."""
    number = zlib.crc32(repr(calls).encode())
    return random.Random(number) if number % 2 else None


def _refused(old: Model, new: Model, calls: list[Call]) -> list[tuple[Call, str]]:
    """Calls that both refuse, to pods that are the same in both; with the pod's account."""
    found = []
    for call in calls:
        ours, theirs = new.now.pods.get(call.pod), old.now.pods.get(call.pod)
        if ours is None or theirs is None or ours.account != theirs.account:
            continue
        answers = (old.answer(call), new.answer(call))
        if all(each is not None and each.status == 401 for each in answers):
            found.append((call, ours.account))
    return found


def _look(
    refused: list[tuple[Call, str]], chain: Chain, index: int, holes: list[Disagreement]
) -> None:
    for call, account in refused:
        local = chain.worker.local_workload(*call.pod, account)
        if local is not None and chain.ask(call, local).status == 200:
            holes.append(Disagreement("between", "let in half way through an update", index, call))


def _states(model: Model, chain: Chain, *, garbled: bool) -> str:
    """Difference between what is known of a pod and what is so in other ways to know it."""
    for (namespace, name), pod in model.now.pods.items():
        local = chain.worker.local_workload(namespace, name, pod.account)
        if local is None:
            return f"pod {namespace}/{name} is unknown"
        policies = policies_of(chain.worker, local)
        for where, state in chain.others(fresh=not garbled).items():
            theirs = state.local_workload(namespace, name, pod.account)
            if theirs != local:
                return f"pod {namespace}/{name} is another one in {where} state"
            if (other := policies_of(state, local)) != policies:
                names = sorted(each.key for each in policies ^ other)
                return f"{namespace}/{name}: {where} policies differ in {names}"
    return ""


def _call(model: Model, chain: Chain, call: Call, tally: Tally) -> tuple[str, str] | None:
    expected = model.answer(call)
    tally.cases += 1
    pod = model.now.pods.get(call.pod)
    if expected is None or pod is None:
        tally.answers["no such pod"] += 1
        known = chain.worker.local_workload(*call.pod, "default")
        return None if known is None else ("pod", "a pod that is not there")
    local = chain.worker.local_workload(*call.pod, pod.account)
    assert local is not None, "asked before"
    tally.answers[_name(expected, call)] += 1
    actual = chain.ask(call, local)
    if actual.status != expected.status:
        return f"{actual.status} instead of {expected.status}", f"{expected}, not {actual}"
    if (actual.port, actual.would_deny) != (expected.port, expected.would_deny):
        return "answer", f"{expected}, not {actual}"
    if not _may_name(expected, actual):
        return "name", f"{expected}, not {actual}"
    return None


def _name(expected: Expected, call: Call) -> str:
    reason = " by name" if expected.named else ""
    return f"{expected.status}{reason} {'plain' if call.identity is None else 'tunnel'}"


def _may_name(expected: Expected, actual: Answer) -> bool:
    if actual.named is None:
        return not expected.named
    namespace, _, name = actual.named.partition("/")
    if name.startswith("unnamed-line-"):
        return any(each.startswith(f"{namespace}/unnamed ") for each in expected.named)
    if name == STATIC_STRICT or name.startswith(CONVERTED):
        return STATIC_STRICT in expected.named
    return actual.named in expected.named
