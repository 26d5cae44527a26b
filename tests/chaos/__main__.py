"""`make chaos`: a run of any length and seed. Prints the seed, each fault, and the findings."""

from __future__ import annotations

import secrets
import sys
import tempfile
from pathlib import Path

import click

from tests.chaos.run import chaos

SECONDS = 120.0


@click.command()
@click.option("--seed", default="", help="Repeat an earlier run's faults; random if not given.")
@click.option("--seconds", default=SECONDS, show_default=True, help="Time of faults.")
def main(seed: str, seconds: float) -> None:
    """Disturb a mesh of two nodes, and tell what broke a promise."""
    seed = seed or secrets.token_hex(4)
    click.echo(f"seed {seed}: {seconds:g} s")
    with tempfile.TemporaryDirectory(prefix="tulle-chaos-") as folder:
        found = chaos(Path(folder), seed, seconds, click.echo)
    click.echo(f"{sum(found.struck.values())} faults of {len(found.struck)} kinds")
    for route in found.answered:
        click.echo(f"{route}: {found.answered[route]} answered, {found.failed[route]} failed")
    slowest = max(found.recovery_s)
    click.echo(f"longest call {found.longest_s:.1f} s, longest recovery {slowest:.1f} s")
    for line in found.wrong:
        click.echo(f"WRONG {line}")
    sys.exit(bool(found.wrong))


if __name__ == "__main__":
    main()
