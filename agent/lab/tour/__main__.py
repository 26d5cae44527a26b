"""`make run`: the lab brought up, walked through, checked claim by claim, and taken down."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import click

from agent.lab.lab import Lab
from agent.lab.tour import same_node, steps
from agent.lab.tour.report import ClaimFailed, Report
from agent.lab.tour.world import World, rss_mib
from control.kit.clock import SystemClock
from control.kit.errors import MeshError

SHOP = Path(__file__).parents[1] / "shop"
# What each process may take at most (resident set), MiB.
BUDGETS_MIB = {"agent": 45.0, "ztunnel": 60.0, "worker": 40.0}
STEPS = (
    steps.before_enrolment,
    steps.enrol,
    steps.strangers,
    steps.authorization,
    same_node.direct,
    steps.faults,
    steps.rotation,
)


def memory(world: World) -> None:
    """RSS of each process, against its budget where it has one."""
    for name, process in sorted(world.lab.store.load().processes.items()):
        kind = name.split("-")[0]
        _figure(world, name, process.pid, BUDGETS_MIB.get(kind))
        if kind == "ztunnel":
            for index, pid in enumerate(_children(process.pid), 1):
                _figure(world, f"{name} worker {index}", pid, BUDGETS_MIB["worker"])


def _figure(world: World, name: str, pid: int, budget_mib: float | None) -> None:
    used = rss_mib(pid)
    if budget_mib is None:
        world.report.figure(f"RSS of {name}", f"{used:.1f} MiB")
        return
    verdict = "within" if used <= budget_mib else "ABOVE"
    world.report.figure(f"RSS of {name}", f"{used:.1f} MiB ({verdict} {budget_mib:.0f})")


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def walk(lab: Lab, report: Report) -> None:
    with report.step("0. Two nodes, twelve pods, real servers"):
        report.run("tulle lab up agent/lab/shop")
        lab.up(SHOP)
        world = World(lab, report)
        report.show(world.tulle("lab", "status"))
    for step in STEPS:
        step(world)
    memory(world)


@click.command(help=__doc__)
@click.option("--keep", is_flag=True, help="Leave the lab up at the end, to look around.")
def main(keep: bool) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report(SystemClock())
    lab = Lab(progress=lambda text: print(f"      … {text}", file=sys.stderr, flush=True))
    code = 0
    try:
        walk(lab, report)
    except (ClaimFailed, MeshError, OSError) as exc:
        print(f"\nThe tour failed: {exc}\nLogs: {lab.run_dir / 'logs'}", file=sys.stderr)
        _last_words(lab)
        code = 1
    except KeyboardInterrupt:
        print("\nInterrupted: taking the lab down.", file=sys.stderr)
        code = 130
    finally:
        if not keep:
            with report.step("Down"):
                lab.down()
    if code == 0:
        report.summary()
        print("  Look around yourself: make lab, then `tulle status` (see README.md).", flush=True)
    raise SystemExit(code)


def _last_words(lab: Lab) -> None:
    """The end of each daemon's log: the lab is about to go, and its logs with it."""
    logs = lab.run_dir / "logs"
    for path in [logs / "control.log", *sorted(logs.glob("agent-*")), *sorted(logs.glob("ztun*"))]:
        if not path.exists():
            continue
        lines = path.read_text(errors="replace").splitlines()[-12:]
        print(f"\n--- {path.name}", *lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    main()
