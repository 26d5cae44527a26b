"""The direct path under load on the whole mesh, while policy, pods and processes change.

One worker: as soon as one connection is refused every later one must be.
"""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from agent.lab import changes
from tests.support.lab.mesh_bed import MARKER, POLICY_FILE, PORT, Bed, Reply, is_closed, soon, speak
from tests.support.lab.mesh_direct import chosen, deny, direct_mesh, goes_direct, metrics, vips
from tests.support.lab.prober import Running, Try, prober

FLIPS = 12
PHASE_S = 0.15
LIVE = 200
KEPT = 20
CUT_S = 5.0
QUICK = 1000
MULTIPATH = 262


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with direct_mesh(tmp_path_factory.mktemp("load"), workers=1) as made:
        yield made


def targets(bed: Bed) -> list[tuple[str, int]]:
    """Pod and service, both families."""
    services = vips(bed, "nearby")
    return [(bed.address("near", f), PORT) for f in (4, 6)] + [(services[f], 80) for f in (4, 6)]


def violations(running: Running, windows: list[tuple[float, float]]) -> list[Try]:
    """Answered though begun while a policy was in effect."""
    return [
        each
        for start_s, end_s in windows
        for each in running.tries
        if each.outcome == "answered" and start_s < each.started_s < end_s
    ]


def is_let_in(bed: Bed, pod: str) -> bool:
    """The ztunnel's answer, since MPTCP never goes direct."""
    with bed.socket(pod, 4, MULTIPATH) as sock:
        try:
            sock.connect((bed.address("near", 4), PORT))
        except TimeoutError:
            raise
        except OSError:
            return False
        return bool(speak(sock))


@contextmanager
def denied(bed: Bed, pod: str, windows: list[tuple[float, float]]) -> Iterator[None]:
    """`windows` has the time from the ztunnel's first no until the policy is taken back."""
    bed.write_policy(deny(pod))
    try:
        soon(lambda: not is_let_in(bed, pod), "the policy is there")
        start_s = time.monotonic()
        yield
        windows.append((start_s, time.monotonic()))
    finally:
        (bed.lab.manifests_folder / POLICY_FILE).unlink()


def test_no_connection_begun_under_a_deny_reaches_the_app(bed: Bed) -> None:
    address = bed.address("near", 4)
    windows: list[tuple[float, float]] = []
    direct: list[int] = []
    with prober(bed, "other", *targets(bed)) as running, prober(bed, "client", *targets(bed)):
        for _ in range(FLIPS):
            soon(lambda: bed.ask("other", address) is Reply.ANSWERED, "let in")
            before = chosen(bed)
            time.sleep(PHASE_S)
            direct.append(chosen(bed) - before)
            with denied(bed, "other", windows):
                time.sleep(PHASE_S)
    outcomes = Counter(each.outcome for each in running.tries)
    assert violations(running, windows) == []
    assert min(outcomes["answered"], outcomes["closed"], sum(direct)) > FLIPS * 10, outcomes
    assert outcomes["late"] == 0


def test_two_hundred_live_connections_are_cut_and_others_are_not(bed: Bed) -> None:
    addresses = targets(bed)
    with ExitStack() as stack:
        for pod in ("other", "client"):
            goes_direct(bed, *addresses[0], pod=pod).close()
        before = chosen(bed)
        live = {
            pod: [stack.enter_context(bed.dial(pod, *addresses[0])) for _ in range(number)]
            for pod, number in (("other", LIVE), ("client", KEPT))
        }
        assert chosen(bed) - before >= (LIVE + KEPT) * 0.95
        assert all(speak(each) for pod in live for each in live[pod])
        with prober(bed, "client", *addresses), bed.policy(deny("other")):
            soon(lambda: bed.ask("other", *addresses[0]) is not Reply.ANSWERED, "it holds")
            until_s = time.monotonic() + CUT_S
            for each in live["other"]:
                each.settimeout(max(0.01, until_s - time.monotonic()))
                assert is_closed(each)
            assert all(speak(each) for each in live["client"])
    soon(lambda: bed.ask("other", *addresses[0]) is Reply.ANSWERED, "let in again")


def test_a_thousand_quick_connections_are_counted_once_each(bed: Bed) -> None:
    address = bed.address("near", 4)
    goes_direct(bed, address).close()
    labels = {"path": "direct", "source_workload": "client", "destination_workload": "near"}
    names = [
        (f"istio_tcp_{what}_total", reporter)
        for what in (
            "connections_opened",
            "connections_closed",
            "sent_bytes",
            "received_bytes",
        )
        for reporter in ("source", "destination")
    ]

    def numbers() -> list[int]:
        return [int(metrics(bed, name, **labels, reporter=who)) for name, who in names]

    def quiet() -> bool:
        opened = numbers()
        return opened[:2] == opened[2:4]

    soon(quiet, "all earlier ones are over")
    before, chosen_before = numbers(), chosen(bed)
    for _ in range(QUICK):
        with bed.dial("client", address) as sock:
            answer = f"::ffff:{speak(sock)} {MARKER}\n"  # ports of five digits: all are as long
    carried = chosen(bed) - chosen_before
    assert carried > QUICK * 0.9

    def counted() -> list[int]:
        return [now - then for now, then in zip(numbers(), before, strict=True)]

    soon(lambda: counted()[2:4] == [carried] * 2, "the end of each")
    answered, asked = carried * len(answer), carried * len(f"{MARKER}\n")
    assert counted() == [carried] * 4 + [answered] * 2 + [asked] * 2


def agent_pid(bed: Bed) -> int:
    return bed.lab.store.load().processes[f"agent-{bed.here}"].pid


def test_an_agent_that_is_stopped_opens_nothing(bed: Bed) -> None:
    """Verdicts end with the lease; a policy waits for that, and then holds."""
    address = bed.address("near", 4)
    goes_direct(bed, address, pod="other").close()
    windows: list[tuple[float, float]] = []
    pid = agent_pid(bed)
    with prober(bed, "other", *targets(bed)) as running:
        os.kill(pid, signal.SIGSTOP)
        try:
            with denied(bed, "other", windows):
                time.sleep(PHASE_S)
                os.kill(pid, signal.SIGCONT)
                time.sleep(2 * PHASE_S)
        finally:
            os.kill(pid, signal.SIGCONT)
    assert violations(running, windows) == []
    soon(lambda: bed.ask("other", address) is Reply.ANSWERED, "let in again")
    goes_direct(bed, address, pod="other").close()


@pytest.mark.parametrize("what", ["agent", "ztunnel"])
def test_a_process_killed_under_load_lets_nothing_by(bed: Bed, what: str) -> None:
    address = bed.address("near", 4)
    windows: list[tuple[float, float]] = []
    with (
        goes_direct(bed, address, pod="client") as kept,
        goes_direct(bed, address, pod="other") as forbidden,
        prober(bed, "other", *targets(bed)) as running,
    ):
        changes.kill(bed.lab, what, bed.here)
        if what == "ztunnel":  # else its own end is taken for its first no
            soon(lambda: bed.ask("other", address) is not Reply.ANSWERED, "the agent noticed")
        with ExitStack() as again, denied(bed, "other", windows):
            again.callback(changes.restart, bed.lab, what, bed.here)
            time.sleep(PHASE_S)
            again.close()
            soon(lambda: bed.ask("other", address) is Reply.CLOSED, "it still holds")
            time.sleep(2 * PHASE_S)
            forbidden.settimeout(CUT_S)
            assert is_closed(forbidden)
            assert speak(kept)
    assert violations(running, windows) == []
    soon(lambda: bed.ask("other", address) is Reply.ANSWERED, "let in again")
    goes_direct(bed, address, pod="other").close()
