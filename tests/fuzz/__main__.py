"""`make fuzz`: the policy fuzzer for as many cases as are asked for, on all cores.

Prints the seed first. A disagreement ends it with the smallest reproduction that was found.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from functools import partial

import click

from tests.fuzz.policy_fuzzer import Tally
from tests.fuzz.policy_search import Failure, search

Search = Callable[[str, Iterable[int]], tuple[Tally, Failure | None]]

CASES = 10_000_000
BATCH = 50  # scenarios: some two seconds, so that progress is seen and nothing waits long
JOBS_AHEAD = 2  # batches in hand per process: enough that none idles


def batches(seed: str, jobs: int, look: Search) -> Iterator[tuple[Tally, Failure | None]]:
    """Finished batches as they come, without an end."""
    with ProcessPoolExecutor(jobs) as pool:
        waiting: set[Future[tuple[Tally, Failure | None]]] = set()
        first = 0
        try:
            while True:
                while len(waiting) < jobs * JOBS_AHEAD:
                    waiting.add(pool.submit(look, seed, range(first, first + BATCH)))
                    first += BATCH
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (each.result() for each in done)
        finally:
            pool.shutdown(cancel_futures=True)


@click.command()
@click.option("--seed", default="", help="Repeat an earlier run; random if not given.")
@click.option("--cases", default=CASES, show_default=True, help="Connections to ask about.")
@click.option("--jobs", default=os.cpu_count() or 1, help="Processes.")
@click.option("--between", is_flag=True, help="Look into updates that are half way as well.")
@click.option("--number", type=int, help="Run this scenario of the seed alone.")
def main(seed: str, cases: int, jobs: int, number: int | None, between: bool) -> None:
    """Compare the product's answers with those of the policy model."""
    seed = seed or secrets.token_hex(4)
    click.echo(f"seed {seed}: {cases} cases, {jobs} processes")
    total = Tally()
    look = partial(search, between=between)
    rounds = (
        [look(seed, range(number, number + 1))] if number is not None else batches(seed, jobs, look)
    )
    shown = 0
    for tally, failure in rounds:
        if failure is not None:
            click.echo(failure.report)
            click.echo(f"again: make fuzz SEED={seed} NUMBER={failure.number}")
            sys.exit(1)
        total.add(tally)
        if total.cases * 20 // cases > shown:
            shown = total.cases * 20 // cases
            click.echo(f"{total.cases} cases, {total.meshes} meshes")
        if total.cases >= cases:
            break
    for answer, count in sorted(total.answers.items()):
        click.echo(f"{count:>10} {answer}")


if __name__ == "__main__":
    main()
