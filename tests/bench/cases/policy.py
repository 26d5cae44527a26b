"""The price of 1,000 authorization rules that match nobody, before the one that allows."""

from __future__ import annotations

from tests.bench import manifests
from tests.bench.bed import APPLY_TIMEOUT_S, Bed
from tests.bench.cases import requests
from tests.bench.cases.case import Case, Settings, Values
from tests.bench.manifests import NODE_B, POLICY_FILE
from tests.bench.model import System, Topology
from tests.bench.target import Target


def run(bed: Bed, target: Target, settings: Settings) -> Values:
    few_rps, few_conns = _rates(bed, target, settings)
    last = f"account-{settings.rules - 1}"
    try:
        bed.write(POLICY_FILE, manifests.many_rules(settings.rules))
        bed.wait(lambda: last in bed.policies(NODE_B), "the rules at the node", APPLY_TIMEOUT_S)
        many_rps, many_conns = _rates(bed, target, settings)
    finally:
        bed.remove(POLICY_FILE)
    bed.wait(lambda: last not in bed.policies(NODE_B), "the rules gone again", APPLY_TIMEOUT_S)
    return {
        "few_rps": few_rps,
        "many_rps": many_rps,
        "rps_kept": many_rps / few_rps,
        "few_conns": few_conns,
        "many_conns": many_conns,
        "conns_kept": many_conns / few_conns,
    }


def _rates(bed: Bed, target: Target, settings: Settings) -> tuple[float, float]:
    kept = requests.load(bed, target, 64, settings.seconds)
    new = requests.load(
        bed, target, requests.CLOSING_CONNECTIONS, settings.seconds, *requests.CLOSE
    )
    return kept.rps, new.rps


CASES = (
    Case(
        "policy",
        "authorization with 1,000 rules",
        run,
        systems=(System.TULLE,),
        topologies=(Topology.CROSS,),
    ),
)
