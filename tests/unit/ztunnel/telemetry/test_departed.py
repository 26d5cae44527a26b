"""Label sets of those that have gone: told, expired, evicted; those of the living never are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control.model.address import parse_endpoint
from control.model.workload import Workload
from tests.support.engine.meshes import pod, service
from ztunnel.refusals import Flag
from ztunnel.supervisor.metrics import Tally
from ztunnel.telemetry.counters import Counters
from ztunnel.telemetry.departed import EXPIRE_S, LOOKS_MAX
from ztunnel.telemetry.parties import Memo, Parties, Reporter, Series

SERVER = pod("server", "10.0.0.2")
OPENED = "istio_tcp_connections_opened_total"
PIECE = 32


class Rig:
    def __init__(self, label_sets_max: int = 10_000) -> None:
        self.mesh: set[str] = {SERVER.uid}
        self.counters = Counters(label_sets_max, self.mesh.__contains__)
        self.tally = Tally()
        self.now_s = 0.0

    def add(self, name: str) -> Workload:
        made = pod(name, "10.0.0.3")
        self.mesh.add(made.uid)
        return made

    def parties(self, client: Workload, memo: Memo | None = None) -> Parties:
        address = parse_endpoint("10.0.0.3:4000")
        return Parties(Reporter.SOURCE, address, address, client, SERVER, memo=memo)

    def open(self, client: Workload, memo: Memo | None = None) -> Series:
        series = self.counters.series(self.parties(client, memo))
        series.opened += 1
        return series

    def connect(self, client: Workload) -> Series:
        series = self.open(client)
        series.finished += 1
        return series

    def remove(self, workload: Workload) -> None:
        self.mesh.discard(workload.uid)
        self.counters.departed.gone(workload.uid)

    def poll(self, pass_s: float = 0.0) -> None:
        """The supervisor's question, `pass_s` later."""
        self.now_s += pass_s
        for rows in self.counters.changed(PIECE):
            self.tally.heard(0, {"counters": rows})
        for _ in self.counters.departed.look(self.now_s, PIECE):
            pass
        for rows in self.counters.forgotten(PIECE):
            self.tally.heard(0, {"forgotten": rows})

    @property
    def shown(self) -> dict[str, float]:
        """Connections by the source's name, as the page has them."""
        return {
            each.labels["source_workload"]: each.value
            for each in self.tally.samples()
            if each.name == OPENED
        }


def test_ten_thousand_jobs_later_a_new_one_has_its_own_name() -> None:
    rig = Rig(label_sets_max=1000)
    for number in range(10_000):
        job = rig.add(f"job-{number}")
        rig.connect(job)
        rig.remove(job)
        if number % 100 == 99:
            rig.poll(5)
    rig.connect(rig.add("new"))
    rig.poll()
    assert rig.shown["new"] == 1
    assert "other" not in rig.shown
    assert rig.counters.label_sets_refused == 0
    assert len(rig.counters._series) <= 1000
    for _ in range(2):
        rig.poll(EXPIRE_S)
    assert rig.shown == {"new": 1}


def test_a_scraper_sees_the_last_counts() -> None:
    rig = Rig()
    job = rig.add("job")
    rig.connect(job)
    rig.remove(job)
    rig.poll(5)
    rig.poll(EXPIRE_S - 1)
    assert rig.shown == {"job": 1}
    rig.poll(1)
    assert rig.shown == {}


def test_a_set_with_an_open_connection_stays() -> None:
    rig = Rig()
    job = rig.add("job")
    series = rig.open(job)
    rig.remove(job)
    for _ in range(5):
        rig.poll(EXPIRE_S)
    assert rig.shown == {"job": 1}
    series.closed[Flag.CONNECT] = 1
    for _ in range(2):
        rig.poll(EXPIRE_S)
    assert rig.shown == {}


def test_pods_of_one_deployment_keep_their_set() -> None:
    rig = Rig()
    old = rig.add("web")
    rig.connect(old)
    new = pod("web", "10.0.0.4", uid="another")
    rig.mesh.add(new.uid)
    rig.remove(old)
    rig.poll(5)
    rig.connect(new)
    for _ in range(3):
        rig.poll(EXPIRE_S)
    assert rig.shown == {"web": 2}


def test_a_connection_that_fails_after_its_peer_has_gone_leaves_no_set_for_good() -> None:
    rig = Rig()
    job = rig.add("job")
    rig.remove(job)
    rig.poll(5)
    rig.counters.series(rig.parties(job)).failed[Flag.CONNECT] = 1
    for _ in range(3):
        rig.poll(EXPIRE_S)
    assert rig.counters._series == {}


def test_a_service_that_has_gone_takes_its_sets_along() -> None:
    rig = Rig()
    client, web = rig.add("client"), service("web", "10.1.0.1")
    rig.mesh.add(web.key)
    parties = rig.parties(client)
    parties.service = web
    rig.counters.series(parties).finished = 1
    rig.connect(client)
    rig.mesh.discard(web.key)
    rig.counters.departed.gone(web.key)
    for _ in range(2):
        rig.poll(EXPIRE_S)
    assert len(rig.counters._series) == 1


def test_a_memo_of_a_dropped_set_is_not_counted_in() -> None:
    rig = Rig()
    memo = Memo()
    job = rig.add("job")
    rig.open(job, memo).finished += 1
    rig.remove(job)
    for _ in range(2):
        rig.poll(EXPIRE_S)
    rig.mesh.add(job.uid)
    rig.open(job, memo)
    rig.poll()
    assert rig.shown == {"job": 1}


def test_room_is_looked_for_in_a_bounded_part() -> None:
    rig = Rig(label_sets_max=2 * LOOKS_MAX)
    jobs = [rig.add(f"job-{number}") for number in range(2 * LOOKS_MAX)]
    for number, job in enumerate(jobs):
        series = rig.open(job)
        series.finished = int(number >= LOOKS_MAX)  # the older half is open
    for job in jobs:
        rig.remove(job)
    rig.poll()
    assert rig.connect(rig.add("unlucky")).labels["source_workload"] == "other"
    assert rig.connect(rig.add("lucky")).labels["source_workload"] == "lucky"


Step = tuple[str, int]
STEPS = st.tuples(
    st.sampled_from(["add", "remove", "connect", "fail", "poll", "wait"]), st.integers(0, 9)
)


def test_one_that_is_back_under_its_name_is_one_of_the_living() -> None:
    rig = Rig()
    rig.connect(rig.add("a"))
    rig.remove(rig.add("b"))
    rig.connect(rig.add("b"))
    rig.poll()
    rig.poll(EXPIRE_S)
    rig.poll(EXPIRE_S)
    assert rig.shown == {"a": 1, "b": 1}


@pytest.mark.parametrize("label_sets_max", [3, 100])
@settings(max_examples=200)
@given(steps=st.lists(STEPS, max_size=60))
def test_the_living_are_counted_and_the_rest_goes(label_sets_max: int, steps: list[Step]) -> None:
    rig = Rig(label_sets_max)
    living: dict[int, Workload] = {}
    since: dict[str, float] = {}  # connections of those alive, since they came
    for action, number in steps:
        name = f"w{number}"
        if action == "add" and number not in living:
            living[number] = rig.add(name)
        elif action == "remove" and number in living:
            rig.remove(living.pop(number))
            since.pop(name, None)
        elif action in ("connect", "fail") and number in living:
            series = rig.connect(living[number])
            if series.labels["source_workload"] == name:
                since[name] = since.get(name, 0) + 1
        elif action in ("poll", "wait"):
            rig.poll(EXPIRE_S if action == "wait" else 5)
        assert len(rig.counters._series) <= label_sets_max + 1
    rig.poll()
    for name, count in since.items():
        assert rig.shown.get(name, 0) >= count, "a living one was dropped"
    for workload in living.values():
        rig.remove(workload)
    for _ in range(3):
        rig.poll(EXPIRE_S)
    assert set(rig.shown) <= {"other"}
    assert rig.counters.departed._since == {}
