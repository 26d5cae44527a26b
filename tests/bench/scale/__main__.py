"""The control plane as it grows: with the mesh, with its nodes, with what changes.

    make bench-scale                                    bounded: some eight minutes on two cores
    make bench-scale SCALE="--full"                     500 nodes at 50,000 pods
    python -m tests.bench.scale --alone 1000,10000 --fan 10000x100 --kube ""

Real control planes, simulated nodes over loopback (streams over TLS that keep nothing), a health
probe beside. Hundreds of nodes at once from one address meet the control plane's own bound. Prints
a table with goals and exponents, and writes it with a plot to build/scale.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import time
from dataclasses import asdict
from pathlib import Path

from tests.bench.scale import parts
from tests.bench.scale.outcome import (
    EXPONENT_GOAL,
    NAMES,
    YARDSTICKS,
    ScaleFigure,
    exponent,
    missed,
    shown,
    table,
)
from tests.bench.scale.picture import svg

FOLDER = Path(__file__).parents[3] / "build" / "scale"
ALONE, FAN, KUBE = "1000,10000,50000", "1000x100,10000x100", "10000"
FULL_FAN = "10000x500,50000x500"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--full", action="store_true", help="the sizes of the goals")
    parser.add_argument("--alone", help="meshes, by pods")
    parser.add_argument("--fan", help="meshes with their nodes, PODSxNODES")
    parser.add_argument(
        "--lists", action="store_true", help="nodes come back with lists, as Istio's ztunnel"
    )
    parser.add_argument("--kube", default=KUBE, help="meshes on an API server")
    arguments = parser.parse_args()
    alone = arguments.alone if arguments.alone is not None else ALONE
    fan = arguments.fan if arguments.fan is not None else FULL_FAN if arguments.full else FAN
    kube = f"{KUBE},50000" if arguments.full and arguments.kube == KUBE else arguments.kube
    started_at = time.strftime("%Y%m%d-%H%M%S")
    figures = asyncio.run(measure(alone, fan, kube, sums=not arguments.lists))
    report(figures, started_at)
    return 0


async def measure(alone: str, fan: str, kube: str, *, sums: bool = True) -> list[ScaleFigure]:
    found: list[ScaleFigure] = []
    for word in filter(None, alone.split(",")):
        await take(found, f"alone {word}", parts.alone(int(word)))
    for word in filter(None, kube.split(",")):
        await take(found, f"API server {word}", parts.kube(int(word)))
    for word in filter(None, fan.split(",")):
        pods, _, nodes = word.partition("x")
        await take(found, f"fan {word}", parts.fan(int(pods), int(nodes), sums=sums))
    return found


async def take(found: list[ScaleFigure], name: str, figures: parts.Figures) -> None:
    """A part that fails costs what it had not measured yet."""
    say(f"-- {name}")
    try:
        async for each in figures:
            found.append(each)
            words, unit = NAMES[each.name]
            say(f"{words}: {shown(each.value)} {unit}")
    except (TimeoutError, OSError, ExceptionGroup, parts.Unmeasured) as exc:
        say(f"{name} failed: {words_of(exc)}")


def words_of(exc: BaseException) -> str:
    """A failure with those in it, on one line."""
    inner = exc.exceptions if isinstance(exc, BaseExceptionGroup) else ()
    said = ", ".join(map(words_of, inner)) if inner else str(exc)
    return f"{type(exc).__name__} {said}".strip()


def report(figures: list[ScaleFigure], started_at: str) -> None:
    say("")
    say(table(figures))
    grown = exponent(figures, "change_cpu_ms")
    if grown is not None:
        say(f"\nCPU of a change grows with the mesh to the power {grown:.2f}; goal {EXPONENT_GOAL}")
    for each in missed(figures):
        say(f"missed: {each}")
    say("\nOthers, elsewhere:")
    for what, hardware, source in YARDSTICKS:
        say(f"- {what}" + (f" ({hardware}; {source})" if source else ""))
    FOLDER.mkdir(parents=True, exist_ok=True)
    value = {"started_at": started_at, "figures": [asdict(each) for each in figures]}
    (FOLDER / f"{started_at}.json").write_text(json.dumps(value, indent=1) + "\n")
    (FOLDER / f"{started_at}.svg").write_text(svg(figures))
    say(f"\n{FOLDER / started_at}.json and .svg")


def say(words: str) -> None:
    sys.stdout.write(words + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
