"""The whole chain from manifests to verdicts beside the model, and proof that faults are seen."""

from __future__ import annotations

from itertools import count

import pytest
from click.testing import CliRunner

from tests.fuzz.__main__ import main
from tests.fuzz.policy_chain import Node
from tests.fuzz.policy_faults import MODEL_FAULTS, AllowBeatsDeny
from tests.fuzz.policy_model import Model
from tests.fuzz.policy_node_faults import NODE_FAULTS, TakesHalvesForWholes, chain_with
from tests.fuzz.policy_search import search

CASES = 100_000  # `make fuzz` asks for a hundred times as many, of a random seed
SEED = "gate"

# Answers that have to be frequent, or the fuzzer looks at nothing.
FREQUENT = {
    f"{status}{named} {how}"
    for status in (200, 401)
    for named in ("", " by name")
    for how in ("plain", "tunnel")
}


@pytest.mark.timeout(600)
def test_product_and_model_agree() -> None:
    tally, failure = search(SEED, count(), CASES, between=True)
    assert failure is None, failure and failure.report
    assert tally.cases >= CASES
    rare = {each for each in FREQUENT if tally.answers[each] < CASES // 100}
    assert not rare, tally.answers


def test_a_reproduction_is_small() -> None:
    _, failure = search(SEED, count(), CASES, make_model=AllowBeatsDeny)
    assert failure is not None
    objects = [line for line in failure.report.splitlines() if '"kind"' in line]
    assert len(objects) == 3, failure.report  # a pod, what allows, what denies
    assert failure.report.count("Call(") == 1


def test_a_scenario_can_be_run_alone() -> None:
    found = CliRunner().invoke(main, ["--seed", SEED, "--number", "7"])
    assert found.exit_code == 0, found.output
    assert found.output.startswith(f"seed {SEED}: ")


@pytest.mark.parametrize("fault", MODEL_FAULTS, ids=lambda each: each.__name__)
def test_a_fault_in_what_policy_means_is_seen(fault: type[Model]) -> None:
    _, failure = search(SEED, count(), CASES, make_model=fault, smaller=False)
    assert failure is not None


def test_half_an_update_that_is_taken_for_all_of_it_is_seen() -> None:
    chain = chain_with(TakesHalvesForWholes)
    _, failure = search(SEED, count(), CASES, make_chain=chain, between=True, smaller=False)
    assert failure is not None
    assert failure.kind == "between"


@pytest.mark.parametrize("fault", NODE_FAULTS, ids=lambda each: each.__name__)
def test_a_fault_on_the_way_to_the_node_is_seen(fault: type[Node]) -> None:
    _, failure = search(SEED, count(), CASES, make_chain=chain_with(fault), smaller=False)
    assert failure is not None
