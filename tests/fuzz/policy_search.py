"""Search of one seed's scenarios for a disagreement, and the report of the first."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial

from tests.fuzz.policy_chain import Chain
from tests.fuzz.policy_contents import Options
from tests.fuzz.policy_fuzzer import Tally, compare
from tests.fuzz.policy_model import Model
from tests.fuzz.policy_shrink import describe, shrink
from tests.fuzz.policy_worlds import Scenario, Worlds

CALLS = 50  # to each folder: a mesh costs as much as this many calls


@dataclass(frozen=True)
class Failure:
    """The scenario of this number is one on which the two disagree; `report` has it smaller."""

    number: int
    kind: str
    report: str


def scenario_of(seed: str, number: int) -> Scenario:
    return Worlds(f"{seed}/{number}", CALLS).scenario()


def search(
    seed: str,
    numbers: Iterable[int],
    cases: int | None = None,
    make_model: Callable[[Options], Model] = Model,
    make_chain: Callable[[Options], Chain] = Chain,
    *,
    between: bool = False,
    smaller: bool = True,
) -> tuple[Tally, Failure | None]:
    """Stop at the first disagreement, made smaller, or when so many cases are done. `between` is as
    in `compare`."""
    tally = Tally()
    look = partial(compare, make_model=make_model, make_chain=make_chain, between=between)
    for number in numbers:
        scenario = scenario_of(seed, number)
        found = look(scenario, tally=tally)
        if found is not None:
            if smaller:
                scenario = shrink(scenario, found, look)
                found = look(scenario) or found
            return tally, Failure(number, found.kind, describe(scenario, found))
        if cases is not None and tally.cases >= cases:
            break
    return tally, None
