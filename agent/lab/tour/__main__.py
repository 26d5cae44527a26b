"""`make run`: brings the lab up, walks through it claim by claim, and takes it down."""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import click

from agent.lab.lab import Lab
from agent.lab.tour import layer7, same_node, steps
from agent.lab.tour.report import ClaimFailed, Report
from agent.lab.tour.world import World, rss_mib
from control.kit.clock import SystemClock
from control.kit.errors import ConfigError, MeshError
from control.kit.terminal import Terminal

SHOP = Path(__file__).parents[1] / "shop"
# Resident set of each process at most, MiB: claims like any other. Seen on Debian 12 and 13 (Python
# 3.11 and 3.13): agents 35 to 45, supervisors 53 to 64, workers 34 to 42.
BUDGETS_MIB = {"agent": 50.0, "ztunnel": 70.0, "worker": 46.0}
STEPS = (
    steps.before_enrolment,
    steps.enrol,
    steps.strangers,
    steps.authorization,
    same_node.direct,
    steps.faults,
    steps.rotation,
    layer7.waypoint,
)


def memory(world: World) -> None:
    """Print the RSS of each process; a claim for each that has a budget."""
    with world.report.step("9. Memory of the mesh's processes"):
        for name, process in sorted(world.lab.store.load().processes.items()):
            kind = name.split("-")[0]
            _memory_of(world, name, process.pid, BUDGETS_MIB.get(kind))
            if kind == "ztunnel":
                for index, pid in enumerate(_children(process.pid), 1):
                    _memory_of(world, f"{name} worker {index}", pid, BUDGETS_MIB["worker"])


def _memory_of(world: World, name: str, pid: int, budget_mib: float | None) -> None:
    used = rss_mib(pid)
    world.report.figure(f"RSS of {name}", f"{used:.1f} MiB")
    if budget_mib is not None:
        text = f"{name} takes {used:.1f} MiB, at most {budget_mib:.0f}"
        world.report.claim(0 < used <= budget_mib, text)


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(each) for each in text.split()]


def brought_up(lab: Lab, report: Report) -> World:
    """A lab of our own; ConfigError if there is one, which stays as it is."""
    with report.step("0. Two nodes, thirteen pods, real servers"):
        report.run("tulle lab up agent/lab/shop")
        lab.up(SHOP)
    return World(lab, report)


def walk(world: World) -> None:
    world.report.show(world.tulle("lab", "status"))
    for step in STEPS:
        step(world)
    memory(world)


@click.command(help=__doc__)
@click.option("--keep", is_flag=True, help="Leave the lab up at the end.")
def main(keep: bool) -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    report = Report(SystemClock())
    lab = Lab(progress=lambda text: print(f"      … {text}", file=sys.stderr, flush=True))
    code, world = 0, None
    try:
        world = brought_up(lab, report)
        walk(world)
    except (ClaimFailed, MeshError, OSError) as exc:
        print(f"\nThe tour failed: {exc}", file=sys.stderr)
        if not isinstance(exc, ConfigError):  # another lab has logs of its own
            print(f"Logs: {_keep_logs(lab)}", file=sys.stderr)
            _last_words(lab)
        code = 1
    except KeyboardInterrupt:
        print("\nInterrupted: taking the lab down.", file=sys.stderr)
        code = 130
    finally:
        if world is not None and not keep:
            with report.step("Down"):
                lab.down()
    if code == 0:
        report.summary()
        print("  Look around yourself: make lab, then `tulle status` (see README.md).", flush=True)
    raise SystemExit(code)


def _keep_logs(lab: Lab) -> Path:
    """Folder with a copy of all logs, which outlives the lab."""
    kept = Path(tempfile.mkdtemp(prefix="tulle-tour-logs-"))
    with suppress(OSError):
        shutil.copytree(lab.run_dir / "logs", kept, dirs_exist_ok=True)
    return kept


def _last_words(lab: Lab) -> None:
    """The end of each daemon's log."""
    logs = lab.run_dir / "logs"
    for path in [logs / "control.log", *sorted(logs.glob("agent-*")), *sorted(logs.glob("ztun*"))]:
        if not path.exists():
            continue
        lines = path.read_text(errors="replace").splitlines()[-12:]
        print(f"\n--- {path.name}", *lines, sep="\n", file=sys.stderr)


if __name__ == "__main__":
    with Terminal():  # its words and signs on any terminal; `| head` does not leave a lab behind
        main()
