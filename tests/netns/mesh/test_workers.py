"""Two workers on each node: what a page says is in force, counted or open is so in both of them."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from tests.netns.mesh.loop import kill
from tests.netns.mesh.test_cli import tulle
from tests.netns.mesh.test_faults import DENY
from tests.support.lab.mesh_bed import PORT, Bed, Reply, is_closed, mesh_bed, soon, speak
from tests.support.lab.mesh_direct import metrics

CALLERS = ("client", "stranger")  # by a tunnel, and in plaintext
HANG_S = 10.0
MANY = 16  # connections, of which each worker gets some: all in one has a chance of 2^-15
OPENED = "istio_tcp_connections_opened_total"


@pytest.fixture(scope="module")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    with mesh_bed(tmp_path_factory.mktemp("workers"), workers=2) as made:
        yield made


@contextmanager
def opened(bed: Bed, *callers: str) -> Iterator[dict[str, socket.socket]]:
    """Connections to the server, by the client's address as it stands on pages."""
    with ExitStack() as stack:
        made = {}
        for caller in callers * MANY:
            sock = stack.enter_context(bed.connect(caller, "server", 4))
            made[speak(sock).replace(" ", ":")] = sock
        yield made


def by_worker(bed: Bed, node: str, side: str) -> dict[str, int]:
    """Client's address → the worker that has the connection; each is there once."""
    found = [
        (each["src"], each["worker"])
        for state in bed.ztunnel(node)["workloadState"].values()
        for each in state["connections"][side]
    ]
    assert len(dict(found)) == len(found)
    return dict(found)


def pids(bed: Bed, node: str) -> dict[int, int]:
    return {each["worker"]: each["pid"] for each in bed.ztunnel(node)["workers"]}


def whole(bed: Bed) -> bool:
    dumps = [bed.ztunnel(node) for node in (bed.here, bed.there)]
    return all(len(dump["workers"]) == 2 and bed.is_current(dump) for dump in dumps)


def test_connections_are_spread_and_listed_and_counted_once(bed: Bed) -> None:
    before = metrics(bed, OPENED, reporter="source")
    with opened(bed, "client") as out, opened(bed, "stranger") as plain:
        leaving = by_worker(bed, bed.here, "outbound")
        assert set(out) <= set(leaving)
        assert set(leaving.values()) == {0, 1}
        coming = by_worker(bed, bed.there, "inbound")
        assert set(out) | set(plain) <= set(coming)
        assert {coming[each] for each in plain} == {0, 1}
        assert metrics(bed, OPENED, reporter="source") - before == MANY
    soon(lambda: not set(out) & set(by_worker(bed, bed.here, "outbound")), "closed")


def test_what_a_page_lists_is_in_force_in_both(bed: Bed) -> None:
    """A worker that lags answers what another one refuses; the page waits for both."""
    for _ in range(3):
        with bed.policy(DENY):
            soon(lambda: bed.no(*((each, "server", PORT) for each in CALLERS)), "refused")
            soon(lambda: bed.in_force(bed.there, "not-client"), "in force")
            replies = [bed.reach(each, "server") for each in CALLERS * MANY]
            assert Reply.ANSWERED not in replies
        soon(lambda: bed.yes(*((each, "server", PORT) for each in CALLERS)), "let in again")
        soon(lambda: whole(bed) and not bed.in_force(bed.there, "not-client"), "gone in both")
        replies = [bed.reach(each, "server") for each in CALLERS * MANY]
        assert set(replies) == {Reply.ANSWERED}


def test_a_policy_ends_what_is_open_in_both(bed: Bed) -> None:
    with opened(bed, *CALLERS) as made, bed.policy(DENY):
        assert all(is_closed(sock) for sock in made.values())
    soon(lambda: bed.yes(*((each, "server", PORT) for each in CALLERS)), "let in again")


@pytest.mark.parametrize("number", [0, 1])
def test_a_worker_that_is_killed_takes_its_own_connections_along(bed: Bed, number: int) -> None:
    soon(lambda: whole(bed), "both are there")
    before = metrics(bed, OPENED, reporter="source")
    with opened(bed, "client") as made:
        owners = by_worker(bed, bed.here, "outbound")
        assert metrics(bed, OPENED, reporter="source") - before == MANY
        kill(pids(bed, bed.here)[number])
        for name, sock in made.items():
            if owners[name] == number:
                assert is_closed(sock)
            else:
                assert speak(sock)
        assert bed.yes(("client", "server", PORT))
        soon(lambda: whole(bed), "it is replaced")
        assert all(speak(sock) for name, sock in made.items() if owners[name] != number)
    assert metrics(bed, OPENED, reporter="source") - before >= MANY + 2, "counts never fall"


def test_a_worker_that_hangs_is_named_and_its_policy_is_not_called_in_force(bed: Bed) -> None:
    soon(lambda: whole(bed), "both are there")
    with stopped(pids(bed, bed.here)[1]), bed.policy(DENY):
        soon(lambda: bed.in_force(bed.there, "not-client"), "in force elsewhere")
        soon(lambda: _listed(bed, "not-client"), "the supervisor has it")
        assert not bed.in_force(bed.here, "not-client")
        assert "workers that have not taken the last changes yet: 1" in tulle(bed, "status").stdout
    soon(lambda: whole(bed), "it goes on")


def _listed(bed: Bed, policy: str) -> bool:
    return policy in {each["name"] for each in bed.ztunnel(bed.here)["policies"]}


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def test_one_that_hangs_for_good_is_replaced_and_who_waits_for_it_is_served(bed: Bed) -> None:
    soon(lambda: whole(bed) and bed.yes(("stranger", "server", PORT)), "both are there, and serve")
    hung = pids(bed, bed.there)[0]
    with stopped(hung):
        address = bed.address("server", 4)
        replies = {bed.ask("stranger", address, timeout_s=HANG_S) for _ in range(MANY)}
        assert replies == {Reply.ANSWERED}
        assert hung not in pids(bed, bed.there).values()
    soon(lambda: whole(bed), "it is replaced")


@pytest.mark.parametrize("what", ["leaves", "is killed"])
def test_pods_that_join_are_served_by_both(bed: Bed, what: str) -> None:
    """Also by a worker that starts meanwhile."""
    soon(lambda: whole(bed), "both are there")
    bed.mode("mesh", "-")
    bed.wait_captured(())
    if what == "is killed":
        kill(pids(bed, bed.here)[1])
    bed.mode("mesh", "=ambient")
    bed.wait_captured()
    soon(lambda: bed.yes(("client", "server", PORT)), "served")
    soon(lambda: whole(bed), "both are there")  # a page lists those of a worker that is ready
    with opened(bed, "client") as made:
        owners = by_worker(bed, bed.here, "outbound")
        assert {owners[each] for each in made} == {0, 1}
