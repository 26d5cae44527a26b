"""A ztunnel is replaced by a newer one beside it: what is open goes on, under today's policy."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from agent.lab import changes, daemons, process
from agent.lab.daemons import Daemons
from agent.lab.process import Process
from tests.support.lab.mesh_bed import FAMILIES, Bed, Reply, is_closed, soon, speak
from tests.support.lab.mesh_direct import deny, direct_mesh, entry_of, goes_direct

# Connections across the roll: tunnelled out, in, and on one node; from and to outside the mesh.
PAIRS = (
    ("client", "server"),
    ("server", "near"),
    ("other", "near"),
    ("client", "near"),
    ("stranger", "near"),
    ("client", "stranger"),
)


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with pytest.MonkeyPatch.context() as patch:
        mine = daemons.environment() | {"TULLE_AGENT_LINGER": "1s"}
        patch.setattr(daemons, "environment", lambda: mine)
        with direct_mesh(tmp_path_factory.mktemp("rollout")) as made:
            yield made


class Rolled:
    def __init__(self, bed: Bed) -> None:
        self._bed = bed
        self.old = self._process()
        changes.restart(bed.lab, "ztunnel", bed.here)
        assert self._process() != self.old

    def _process(self) -> Process:
        return self._bed.lab.store.load().processes[f"ztunnel-{self._bed.here}"]

    @property
    def drains(self) -> bool:
        return process.alive(self.old)


@contextmanager
def opened(bed: Bed) -> Iterator[dict[tuple[str, str, int], socket.socket]]:
    """A connection of each kind and family; `direct` ones are the kernel's own."""
    with ExitStack() as stack:
        made = {
            (pod, target, family): stack.enter_context(bed.connect(pod, target, family))
            for pod, target in PAIRS
            for family in FAMILIES
        }
        for sock in made.values():
            assert speak(sock)
        for pod in ("client", "other"):
            sock = goes_direct(bed, bed.address("near", 4), pod=pod)
            made[pod, "direct", 4] = stack.enter_context(sock)
        yield made


def broken(made: dict[Any, socket.socket]) -> list[Any]:
    return [name for name, sock in made.items() if not speak(sock)]


def test_nothing_breaks_and_the_new_one_gets_what_is_new(bed: Bed) -> None:
    with opened(bed) as made:
        rolled = Rolled(bed)
        assert broken(made) == []
        for pod, target in PAIRS:
            assert bed.reach(pod, target) is Reply.ANSWERED
        with bed.connect("client", "server", 4) as fresh:
            assert speak(fresh)
            assert entry_of(bed, fresh)["path"] == "hbone", "the new one's dump has it"
        soon(lambda: "drain.followed" in bed.log(f"ztunnel-{bed.here}"), "it has seen the new one")
        assert broken(made) == []
        assert rolled.drains
    soon(lambda: not rolled.drains, "with nothing open it ends")


def test_the_old_one_enforces_todays_policy(bed: Bed) -> None:
    with opened(bed) as made:
        rolled = Rolled(bed)
        with bed.policy(deny("client")):
            for target, families in (("near", FAMILIES), ("direct", (4,))):
                for family in families:
                    assert is_closed(made.pop(("client", target, family))), (target, family)
            assert broken(made) == []
            assert rolled.drains
    soon(lambda: not rolled.drains, "with nothing open it ends")


def test_a_policy_of_the_gap_ends_what_the_kernel_carries(bed: Bed) -> None:
    """Nobody hears it when it comes; whoever comes next acts on it."""
    with ExitStack() as stack:
        denied, kept = (
            stack.enter_context(goes_direct(bed, bed.address("near", 4), pod=pod))
            for pod in ("client", "other")
        )
        changes.kill(bed.lab, "ztunnel", bed.here)
        with bed.policy(deny("client")):
            assert speak(denied), "the kernel needs nobody"
            changes.restart(bed.lab, "ztunnel", bed.here)
            assert is_closed(denied)
            assert speak(kept)
            assert bed.reach("client", "near") is not Reply.ANSWERED
    soon(lambda: bed.reach("client", "near") is Reply.ANSWERED, "let in again")


def test_one_that_does_not_know_the_mesh_takes_nothing_over(bed: Bed) -> None:
    changes.stop(bed.lab, "control", None)
    before = bed.log(f"ztunnel-{bed.here}").count("worker.ready")
    rolling = threading.Thread(target=changes.restart, args=(bed.lab, "ztunnel", bed.here))
    rolling.start()
    try:
        soon(lambda: bed.log(f"ztunnel-{bed.here}").count("worker.ready") == before + 2, "workers")
        assert len(bed.agent(bed.here)["ztunnels"]) == 1
        for pod, target in PAIRS:
            assert bed.reach(pod, target) is Reply.ANSWERED
    finally:
        daemons = Daemons(bed.lab.run_dir, bed.lab.store.load())
        control = daemons.start_control()
        rolling.join()
        record(bed, control)
    soon(lambda: [each["newest"] for each in bed.agent(bed.here)["ztunnels"]] == [True], "over")
    assert bed.reach("client", "server") is Reply.ANSWERED


def record(bed: Bed, control: Process) -> None:
    with bed.lab.store.exclusive():
        state = bed.lab.store.load()
        state.processes["control"] = control
        bed.lab.store.save(state)


def test_a_pod_that_leaves_the_mesh_is_dropped_by_the_old_one_too(bed: Bed) -> None:
    """The last one: nobody is in the mesh any more."""
    with opened(bed) as made:
        rolled = Rolled(bed)
        bed.mode("mesh", "-")
        bed.wait_captured(())
        assert is_closed(made["client", "server", 4])
        soon(lambda: not rolled.drains, "nothing is left for it")
