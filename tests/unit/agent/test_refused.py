"""Refusals of the kernel half in the log: each has a line or is counted in one, whoever floods."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from agent.datapath.pods import CapturedPod
from agent.datapath.refused import RefusedSyn, Slots
from agent.refused import REFUSED_LINES_MAX, RefusedLog, addresses_of_host
from agent.registry import Registration
from bpf.layout import REFUSED_SLOTS
from control.kit.errors import KernelError
from control.model.address import parse_endpoint


class Kernel:
    """A kernel half in memory. `pods`: uid → (slot, processor) → count and last SYN."""

    def __init__(self, *uids: str) -> None:
        self.pods: dict[str, dict[tuple[int, int], tuple[int, RefusedSyn]]] = {
            uid: {} for uid in uids
        }
        self.others: dict[str, int] = {}
        self.gone: set[str] = set()
        self.reads = 0

    def refuse(self, uid: str, source: str, times: int = 1, cpu: int = 0, slot: int = 0) -> None:
        syn = RefusedSyn("inbound_strict", parse_endpoint(source), parse_endpoint("10.0.0.2:8080"))
        before = self.pods[uid].get((slot, cpu), (0, syn))[0]
        self.pods[uid][slot, cpu] = before + times, syn

    def counters(self) -> dict[str, int]:
        syns = sum(count for pod in self.pods.values() for count, _ in pod.values())
        return {"captured_v4": 9, "inbound_strict": syns, **self.others}

    def captured(self) -> list[CapturedPod]:
        return [CapturedPod(uid, 1, ()) for uid in self.pods]

    def refused(self, uid: str) -> Slots:
        self.reads += 1
        if uid in self.gone:
            raise KernelError("no such pin")
        return dict(self.pods[uid])


class Names:
    def get(self, uid: str) -> Registration | None:
        return None if uid == "unknown" else Registration(uid, "shop", f"pod-{uid}", "", 0, 0)


@pytest.fixture(autouse=True)
def _everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    found = [vars(each)["fields"] for each in caplog.records]
    caplog.clear()
    return found


def test_a_refused_syn_has_a_line_with_pod_reason_and_count(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel("a", "unknown")
    kernel.refuse("a", "10.9.9.9:1", times=7)  # told by an earlier agent
    log = RefusedLog(kernel, Names())
    kernel.refuse("a", "10.9.9.9:40000", times=3)
    kernel.refuse("unknown", "[fd00::9]:40001")
    log.look()
    (record, _) = caplog.records
    assert (record.name, record.message) == ("access", "connection refused")
    known, unknown = lines(caplog)
    assert {key: str(value) for key, value in known.items()} == {
        "src.addr": "10.9.9.9:40000",
        "dst.addr": "10.0.0.2:8080",
        "dst.workload": "pod-a",
        "dst.namespace": "shop",
        "direction": "inbound",
        "reason": "inbound_strict",
        "count": "3",
    }
    assert (str(unknown["src.addr"]), unknown["count"]) == ("[fd00::9]:40001", 1)
    log.look()
    assert lines(caplog) == []


def test_nothing_is_read_while_nothing_is_refused() -> None:
    kernel = Kernel("a")
    log = RefusedLog(kernel, Names())
    reads = kernel.reads
    log.look()
    assert kernel.reads == reads


def test_processors_are_added_up_and_the_busiest_has_the_word(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel("a")
    log = RefusedLog(kernel, Names())
    kernel.refuse("a", "10.9.9.1:1", times=2, cpu=0)
    kernel.refuse("a", "10.9.9.2:1", times=5, cpu=1)
    log.look()
    (line,) = lines(caplog)
    assert (str(line["src.addr"]), line["count"]) == ("10.9.9.2:1", 7)


@pytest.mark.parametrize("source", ["10.9.9.2:1", "10.9.9.1:1", "[fd00::9]:1"])
def test_processors_that_refused_as_much_have_one_line(
    source: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = Kernel("a")
    log = RefusedLog(kernel, Names())
    kernel.refuse("a", "10.9.9.1:1", times=2, cpu=0)
    kernel.refuse("a", source, times=2, cpu=1)
    log.look()
    assert [each["count"] for each in lines(caplog)] == [4]


def test_a_table_that_was_made_anew_is_read_from_its_start(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel("a")
    log = RefusedLog(kernel, Names())
    kernel.refuse("a", "10.9.9.1:1", times=5)
    log.look()
    kernel.pods["a"] = {}
    kernel.refuse("a", "10.9.9.1:1", times=2)
    kernel.others["inbound_stale"] = 9  # the node's counters go on
    caplog.clear()
    log.look()
    assert [each["count"] for each in lines(caplog)] == [2]


def test_pods_take_turns_for_the_lines_and_the_rest_is_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    uids = [f"p{number}" for number in range(20)]
    kernel = Kernel(*uids, "quiet")
    log = RefusedLog(kernel, Names())
    for uid in uids:
        for slot in range(REFUSED_SLOTS):
            kernel.refuse(uid, f"10.9.{slot}.9:1", times=1000, slot=slot)
    kernel.refuse("quiet", "10.1.1.1:1")
    log.look()
    *found, last = lines(caplog)
    assert len(found) == REFUSED_LINES_MAX
    assert {each["dst.workload"] for each in found} >= {"pod-quiet", "pod-p0", "pod-p19"}
    written = sum(each["count"] for each in found)
    assert written + last["left_out"] == 20 * REFUSED_SLOTS * 1000 + 1


def test_a_pod_that_goes_meanwhile_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    kernel = Kernel("a", "b")
    kernel.gone.add("a")
    log = RefusedLog(kernel, Names())
    kernel.refuse("a", "10.9.9.9:1")
    kernel.refuse("b", "10.9.9.9:1")
    log.look()
    assert [each["dst.workload"] for each in lines(caplog)] == ["pod-b"]


def test_refusals_without_a_syn_have_a_line_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kernel = Kernel("a")
    log = RefusedLog(kernel, Names())
    kernel.others["denied_link_local"] = 4
    log.look()
    assert lines(caplog) == [{"reason": "denied_link_local", "count": 4}]


def test_a_sender_of_this_host_is_named_as_one(caplog: pytest.LogCaptureFixture) -> None:
    """A pod of the host's network comes with its host's address, and has no identity."""
    kernel = Kernel("u")
    log = RefusedLog(kernel, Names(), lambda: {parse_endpoint("192.168.0.5:1").address})
    kernel.refuse("u", "192.168.0.5:4000", slot=0)
    kernel.refuse("u", "10.0.0.9:4000", slot=1)
    log.look()
    assert [each.get("src.network") for each in lines(caplog)] == ["host", None]


def test_the_addresses_of_this_host_are_those_of_its_interfaces() -> None:
    assert parse_endpoint("127.0.0.1:1").address in addresses_of_host()
