"""The benchmark: Tulle beside no mesh, an Envoy HBONE pair and an HAProxy mutual TLS pair.

    make bench                                    all of it, some ten minutes
    make bench BENCH="--quick"                    a first look, some two minutes
    python -m tests.bench --cases c1,c64 --systems tulle,envoy --rounds 5
    python -m tests.bench check [FILE …]          compare the newest run (or these) with the goals

With $TULLE_ZTUNNEL, the command of Istio's ztunnel (or of one that is started by the same
variables), that is measured too: in the same lab, behind our agent, with the same policy.

It needs root, two cores and a quiet machine. Nothing leaves the network namespaces it makes.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import time
from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import TypeVar

from control.kit.errors import MeshError
from tests.bench import goals, plot, results, table
from tests.bench.cases import CASES
from tests.bench.cases.case import Case, Settings
from tests.bench.model import FOREIGN_SHARE_MAX, BenchError, Result, System, Topology
from tests.bench.run import Plan, Run, elapsed, now
from ztunnel.config import WORKERS_MAX

QUICK_CASES = "c1,c64,pingpong,close,bulk1,bulk1r"
ROUNDS, SECONDS = 3, 2.0
ROUNDS_MAX, SECONDS_MAX = 25, 60.0
_SYSTEMS = {
    "none": System.NONE,
    "tulle": System.TULLE,
    "envoy": System.ENVOY,
    "haproxy": System.HAPROXY,
    "ztunnel": System.ZTUNNEL,
}
_ZTUNNEL = "TULLE_ZTUNNEL"
_TOPOLOGIES = {"cross": Topology.CROSS, "same": Topology.SAME}
_Choice = TypeVar("_Choice", bound="Enum | Case")


def main() -> int:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    words = sys.argv[1:]
    try:
        if words[:1] == ["check"]:
            return check([Path(word) for word in words[1:]])
        return bench(words)
    except KeyboardInterrupt:
        say("interrupted: everything was taken down")
        return 130
    except (MeshError, OSError) as exc:
        say(f"failed: {exc}")
        return 2


def bench(words: Sequence[str]) -> int:
    options = parser().parse_args(words)
    run = Run(plan_of(options), say)
    started, started_s = now(), time.monotonic()
    try:
        run.execute()
    finally:
        if run.made:
            told = {key: str(value) for key, value in vars(options).items() if value is not None}
            show(run.result(started, dict(told)), options)
            say(f"the run took {elapsed(started_s)}")
    return 0


def show(result: Result, options: argparse.Namespace) -> None:
    json_path = options.json or results.path_of(result.started_at)
    svg_path = options.svg or json_path.with_suffix(".svg")
    results.save(result, json_path)
    svg_path.parent.mkdir(parents=True, exist_ok=True)
    svg_path.write_text(plot.svg(result))
    sys.stdout.write(f"\n{table.text(result)}\n\n{json_path}\n{svg_path}\n")


def check(files: Sequence[Path]) -> int:
    """Exit code: 0 when the run meets every goal, 1 when a goal is missed or was not measured."""
    paths = list(files)
    if not paths:
        found = results.newest()
        if found is None:
            say("no run yet: running the benchmark first")
            bench([])
            found = results.newest()
        if found is None:
            raise BenchError("the benchmark left no result")
        paths = [found]
    result = results.merge([results.load(path) for path in paths])
    judged = goals.judge(result)
    sys.stdout.write(f"{', '.join(map(str, paths))}\n{goals.text(judged)}\n")
    return 0 if all(one.verdict is goals.Verdict.MET for one in judged) else 1


def plan_of(options: argparse.Namespace) -> Plan:
    by_name = {case.name: case for case in CASES}
    names = options.cases or (QUICK_CASES if options.quick else ",".join(by_name))
    rounds, seconds = options.rounds, options.seconds
    if rounds is None:
        rounds = 1 if options.quick else ROUNDS
    if seconds is None:
        seconds = 1.0 if options.quick else SECONDS
    if not 1 <= rounds <= ROUNDS_MAX or not 1 <= seconds <= SECONDS_MAX:
        raise BenchError(f"--rounds from 1 to {ROUNDS_MAX}, --seconds from 1 to {SECONDS_MAX:.0f}")
    ztunnel = shlex.split(os.environ.get(_ZTUNNEL, ""))
    systems = chosen("--systems", options.systems or ",".join(_default(ztunnel)), _SYSTEMS)
    if System.ZTUNNEL in systems and not ztunnel:
        raise BenchError(f"--systems ztunnel: ${_ZTUNNEL} does not say where it is")
    if not 1 <= options.workers <= WORKERS_MAX:
        raise BenchError(f"--workers from 1 to {WORKERS_MAX}")
    if not 0 < options.foreign <= 100:
        raise BenchError("--foreign: above 0, up to 100 (nothing is thrown away)")
    return Plan(
        cases=chosen("--cases", names, by_name),
        systems=systems,
        topologies=chosen("--topology", options.topology, _TOPOLOGIES),
        rounds=rounds,
        settings=Settings(seconds),
        foreign_max=options.foreign / 100,
        ztunnel=ztunnel,
        workers=options.workers,
    )


def _default(ztunnel: Sequence[str]) -> list[str]:
    return [name for name, each in _SYSTEMS.items() if ztunnel or each is not System.ZTUNNEL]


def chosen(option: str, names: str, known: dict[str, _Choice]) -> list[_Choice]:
    """The chosen names, in the order of `known`."""
    wanted = [name for name in names.split(",") if name]
    for name in wanted:
        if name not in known:
            raise BenchError(f"{option}: {name!r} is none of {', '.join(known)}")
    if not wanted:
        raise BenchError(f"{option}: name at least one of {', '.join(known)}")
    return [value for name, value in known.items() if name in wanted]


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m tests.bench",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    listed = "\n".join(f"  {case.name:9} {case.title}" for case in CASES)
    made.epilog = f"cases:\n{listed}"
    made.add_argument("--cases", metavar="A,B", help="only these")
    told = f"{','.join(_default(()))}; ztunnel with ${_ZTUNNEL}"
    made.add_argument("--systems", metavar="A,B", help=told)
    made.add_argument("--topology", metavar="A,B", default="cross,same", help="%(default)s")
    made.add_argument("--rounds", type=int, metavar="N", help=f"default {ROUNDS}")
    made.add_argument("--seconds", type=float, metavar="S", help=f"a measurement; {SECONDS:g}")
    told = "of each ztunnel, threads of each Envoy and HAProxy, on the proxies' core (%(default)d)"
    made.add_argument("--workers", type=int, metavar="N", default=1, help=told)
    made.add_argument("--quick", action="store_true", help="1 round of 1 second, fewer cases")
    made.add_argument(
        "--foreign",
        type=float,
        metavar="PERCENT",
        default=FOREIGN_SHARE_MAX * 100,
        help="throw away what was measured while others used more of the machine (%(default)g)",
    )
    made.add_argument("--json", type=Path, metavar="FILE", help="default: build/bench/TIME.json")
    made.add_argument("--svg", type=Path, metavar="FILE", help="default: beside the JSON")
    return made


def say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main())
