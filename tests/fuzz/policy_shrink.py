"""Smaller scenarios with the same disagreement: without a step, a file, an object, a field."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from tests.fuzz.policy_contents import Options
from tests.fuzz.policy_fuzzer import Disagreement
from tests.fuzz.policy_worlds import Before, Scenario, Step, places

Compare = Callable[[Scenario], Disagreement | None]

TRIES_MAX = 5000  # one shrinking takes 20 s at most; large scenarios need a tenth


def shrink(scenario: Scenario, found: Disagreement, compare: Compare) -> Scenario:
    """The smallest scenario that was met on the way down. `compare` has to be deterministic."""
    best = Scenario(scenario.options, scenario.steps[: found.step + 1])
    for each in best.steps[:-1]:
        each.calls = []
    best.steps[-1].calls = [found.call] if found.call is not None else []
    tries = TRIES_MAX
    progress = True
    while progress and tries > 0:
        progress = False
        number = 0
        # A smaller one that fails as well is taken, and the same place is tried again.
        while (smaller := _without(best, number)) is not None and tries > 0:
            tries -= 1
            again = _compare(smaller, compare)
            if again is not None and again.kind == found.kind:
                best, progress = smaller, True
            else:
                number += 1
    return best


def _compare(scenario: Scenario, compare: Compare) -> Disagreement | None:
    """A scenario that the model itself cannot take is no reproduction."""
    try:
        return compare(scenario)
    except Exception:
        return None


def _without(scenario: Scenario, number: int) -> Scenario | None:
    """A copy that lacks the part with this number, or None beyond the last."""
    copied = copy.deepcopy(scenario)
    for index, remove in enumerate(_removals(copied)):
        if index == number:
            remove()
            return copied
    return None


def _removals(scenario: Scenario) -> Iterator[Callable[[], Any]]:
    """Large parts first."""
    steps = scenario.steps
    for index in range(len(steps) - 1):
        yield lambda index=index: steps.pop(index)
    for step in steps:
        if step.before is not Before.NOTHING:
            yield lambda step=step: setattr(step, "before", Before.NOTHING)
        for name in list(step.damage):
            yield lambda step=step, name=name: step.damage.pop(name)
    for field in ("root", "trust_domain", "dry_run"):
        plain = getattr(Options(), field)
        if getattr(scenario.options, field) != plain:
            yield lambda field=field, plain=plain: _set(scenario, field, plain)
    files = [step.files for step in steps]
    for container, key in places(files):
        if container is not files:
            yield lambda container=container, key=key: container.pop(key)


def _set(scenario: Scenario, field: str, value: Any) -> None:
    scenario.options = replace(scenario.options, **{field: value})


def describe(scenario: Scenario, found: Disagreement) -> str:
    """A reproduction for people, and for a test: every file of every step."""
    lines = [f"{found.kind}: {found.detail}", f"mesh: {scenario.options}"]
    for index, step in enumerate(scenario.steps):
        lines.append(f"step {index}: {step.before.name.lower()} before{_damage(step)}")
        for name, trees in step.files.items():
            lines += [f"  # {name}"] + [f"  {json.dumps(each)}" for each in trees or ["(broken)"]]
        lines += [f"  {each}" for each in step.calls]
    return "\n".join(lines)


def _damage(step: Step) -> str:
    return f", damaged on the wire: {step.damage}" if step.damage else ""
