"""Two minutes of faults, and proof that the judge sees what breaks a promise."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pytest

from agent.lab import changes
from tests.chaos import callers, run
from tests.chaos.callers import HANG_S, Caller, Route
from tests.chaos.faults import NARROW, Fault
from tests.chaos.run import ROUTES, chaos, disturb, disturbable, wait_for_policy
from tests.support.kernel.netns import eventually
from tests.support.lab.mesh_bed import ENROLLED, POLICY_FILE, Bed

SECONDS = 120.0
SEED = "gate"
KINDS = 25
PLANTED_SECONDS = 20.0


@pytest.mark.timeout(400)
def test_faults_stop_traffic_at_most(tmp_path: Path) -> None:
    """0 in the clear, 0 unauthorised, 0 changed, 0 hangs; and afterwards everybody is served."""
    found = chaos(tmp_path, SEED, SECONDS)
    assert found.wrong == []
    assert len(found.struck) == KINDS  # each of them, or the run says less than it seems to
    for route in ROUTES:
        assert (found.answered[str(route)] > 100) is route.allowed, (route, found)
    assert max(found.recovery_s) < HANG_S


# -- planted --------------------------------------------------------------------------------


@contextmanager
def out_of_the_mesh(bed: Bed) -> Iterator[None]:
    bed.mode("mesh", "-")
    bed.wait_captured(())
    yield
    bed.mode("mesh", "=ambient")
    bed.wait_captured(ENROLLED)
    wait_for_policy(bed)


@contextmanager
def without_policy(bed: Bed) -> Iterator[None]:
    (bed.lab.manifests_folder / POLICY_FILE).unlink()
    yield
    bed.write_policy(NARROW)
    wait_for_policy(bed)


@contextmanager
def dead(bed: Bed) -> Iterator[None]:
    """Nobody starts it again."""
    changes.kill(bed.lab, "ztunnel", bed.there)
    yield


# The last one stays.
PLANTED: dict[str, Callable[[Bed], AbstractContextManager[None]]] = {
    "packets in the clear": out_of_the_mesh,
    "other to server: was answered": without_policy,
    "no answer 4.0 s after the faults: client to server": dead,
}


def test_the_judge_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (callers, run):
        monkeypatch.setattr(module, "HANG_S", 4.0)
    with disturbable(tmp_path) as bed:
        for seen, planted in PLANTED.items():
            fault = Fault("planted", "planted", partial(planted, bed))
            found = disturb(bed, [fault], SEED, PLANTED_SECONDS)
            assert any(seen in line for line in found.wrong), found


class Loopback:
    """Stands in for a bed: a server on loopback that changes what it answers."""

    def __init__(self, change: Callable[[bytes], bytes]) -> None:
        self._change = change

    def address(self, _: str, family: int) -> str:
        return "127.0.0.1"

    def dial(self, _: str, address: str, port: int, timeout_s: float) -> socket.socket:
        with socket.create_server((address, 0)) as listener:
            sock = socket.create_connection(listener.getsockname(), timeout_s)
            accepted, client = listener.accept()
        threading.Thread(target=self._answer, args=(accepted, client[1])).start()
        return sock

    def _answer(self, sock: socket.socket, port: int) -> None:
        with sock:
            line = sock.makefile("rb").readline()
            sock.sendall(self._change(f"127.0.0.1 {port} ".encode() + line))
            sock.recv(1)


@pytest.mark.parametrize(
    ("change", "allowed", "seen"),
    [
        (lambda line: line, True, ""),
        (lambda line: line, False, "was answered"),
        (lambda line: b"1", False, "was answered"),
        (lambda line: b"127.0.0.2" + line[9:], True, "other bytes"),
        (lambda line: line[:-2] + b"\xff\n", True, "other bytes"),
        (lambda line: line[:40] + line[41:], True, "other bytes"),
        (lambda line: line[:-1], True, "hung"),
        (lambda line: b"", True, "hung"),
    ],
)
def test_a_caller_sees(
    change: Callable[[bytes], bytes], allowed: bool, seen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callers, "HANG_S", 0.5)
    route = Route("client", "server", allowed)
    caller = Caller(Loopback(change), route, SEED)  # type: ignore[arg-type]
    caller.start()
    eventually(lambda: caller.tally.answered + caller.tally.failed > 5 or caller.tally.wrong, "it")
    caller.stop()
    caller.join()
    assert any(seen in line for line in caller.tally.wrong) is bool(seen), caller.tally
