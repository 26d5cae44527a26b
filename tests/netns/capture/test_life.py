"""A node's life: agent restarts, releases, replacements and versions, with capture never open."""

from __future__ import annotations

import gc
import os
import shutil
import socket
import threading
from pathlib import Path

import pytest

from agent.datapath.attach import (
    Link,
    Program,
    attached_programs,
    program_by_id,
    program_info,
)
from agent.datapath.dry_load import dry_load, dry_load_image
from agent.datapath.errors import CompileFailed, DatapathError, PodRefused, ProgramRejected
from agent.datapath.folder import versions
from agent.datapath.maps import Map
from agent.datapath.programs import HOOKS, ROOT_HOOKS, SOURCE, compile_image, kernel_features
from bpf.layout import MapType
from tests.support.kernel.datapath import CACHE, Bed, node_bed, open_listeners, original_destination
from tests.support.kernel.netns import Network, Pod, Process, eventually, need_root

FAR4 = ("10.77.0.9", 8080)


def assert_captured(pod: Pod, outbound: socket.socket) -> None:
    with pod.dial(FAR4), outbound.accept()[0] as accepted:
        assert original_destination(accepted) == FAR4


def test_capture_outlives_the_agent_and_a_new_agent_finds_it(bed: Bed, pod: Pod, far: Pod) -> None:
    listeners = bed.capture(pod, "uid.app/1")  # a uid is foreign text: dots, slashes
    before = bed.node.captured()
    bed.node.close()
    assert_captured(pod, listeners.outbound)
    bed.node = bed.reopened()
    assert bed.node.captured() == before
    assert before[0].uid == "uid.app/1"
    assert_captured(pod, listeners.outbound)
    with far.dial(("10.77.0.2", 15008)):
        listeners.hbone.accept()[0].close()
    assert bed.node.counters()["captured_v4"] == 2  # the counters went on as well
    assert bed.node.release("uid.app/1")
    assert not bed.node.release("uid.app/1")


def test_a_release_is_over_when_it_says_so(bed: Bed, pod: Pod, far: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    with pod.listen("0.0.0.0", 8080) as server:
        for _ in range(200):  # the kernel drops a link that nobody holds some time later
            assert bed.node.release("uid-app")
            with far.dial(("10.77.0.2", 8080)) as client:
                assert client.getpeername()[1] == 8080
                server.accept()[0].close()
            bed.capture(pod, "uid-app", listeners)


def test_release_gives_plain_traffic_back_and_the_namespace_free(
    bed: Bed, network: Network, pod: Pod, far: Pod
) -> None:
    listeners = bed.capture(pod, "uid-app")
    assert_captured(pod, listeners.outbound)
    assert bed.node.release("uid-app")
    with far.listen("0.0.0.0", 8080) as server, pod.dial(FAR4):
        assert server.accept()[1][0] == "10.77.0.2"
    with pod.listen("0.0.0.0", 8080) as server, far.dial(("10.77.0.2", 8080)):
        server.accept()[0].close()
    listeners.close()
    pod.delete()
    eventually(lambda: not network.has_port(pod), "the kernel frees the pod's namespace")


def test_capturing_and_releasing_again_and_again_leaks_no_descriptor(bed: Bed, pod: Pod) -> None:
    listeners = bed.capture(pod, "uid-app")
    bed.node.release("uid-app")
    gc.collect()  # sockets of tests before this one
    before = sorted(os.listdir("/proc/self/fd"))
    for _ in range(20):
        bed.capture(pod, "uid-app", listeners)
        bed.node.conflicts()
        bed.node.exempt(bed.ztunnel_cgroup)
        bed.node.release("uid-app")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_pod_that_died_while_the_agent_was_away_is_released_by_uid(
    bed: Bed, network: Network, pod: Pod
) -> None:
    listeners = bed.capture(pod, "uid-app")
    bed.node.close()
    listeners.close()
    pod.delete()
    eventually(lambda: not network.has_port(pod), "our pins do not keep the namespace")
    bed.node = bed.reopened()
    assert [found.uid for found in bed.node.captured()] == ["uid-app"]
    assert bed.node.release("uid-app")
    assert bed.node.captured() == []
    assert {use.name: use.used for use in bed.node.usage()}["pods"] == 0


def test_a_half_done_capture_of_a_dead_agent_is_cleared(bed: Bed, pod: Pod) -> None:
    bed.capture(pod, "uid-app")
    bed.node.close()
    (pins,) = versions(bed.pin_root)[0].pod_folders()
    (pins / "link").unlink()
    bed.node = bed.reopened()
    assert bed.node.captured() == []
    assert not pins.exists()
    assert {use.name: use.used for use in bed.node.usage()}["pods"] == 0


@pytest.mark.parametrize("case", ["capture", "handover", "handover of a damaged one"])
def test_a_new_ztunnel_takes_the_listeners_over(bed: Bed, pod: Pod, far: Pod, case: str) -> None:
    old = bed.capture(pod, "uid-app")
    if case == "handover of a damaged one":
        (pins,) = bed.pin_root.glob("v*/pods/uid-app")
        (pins / "listeners").unlink()
    with Process() as ztunnel:
        ztunnel.join_cgroup(bed.ztunnel_cgroup)
        listeners = open_listeners(ztunnel, pod)
        new = bed.capture(pod, "uid-app", listeners, handover=case != "capture")
        old.close()
        assert_captured(pod, new.outbound)
        for port, listener in ((15008, new.hbone), (8080, new.plaintext)):
            with far.dial(("10.77.0.2", port)):
                listener.accept()[0].close()
    assert len(bed.node.captured()) == 1


def test_a_handover_is_refused_to_a_pod_that_is_captured_otherwise(
    bed: Bed, network: Network, pod: Pod
) -> None:
    bed.capture(pod, "uid-app")
    other = network.pod("other", "10.77.0.33")
    with pytest.raises(PodRefused):
        bed.capture(other, "uid-app", handover=True)


def test_a_reused_address_never_meets_the_old_pods_listeners(
    bed: Bed, network: Network, far: Pod
) -> None:
    first = network.pod("first", "10.77.0.2")
    old = bed.capture(first, "uid-first")
    old.close()
    first.delete()
    second = network.pod("second", "10.77.0.2")
    new = bed.capture(second, "uid-second")
    assert bed.node.release("uid-first")  # the late delete
    assert_captured(second, new.outbound)
    with far.dial(("10.77.0.2", 8080)):
        new.plaintext.accept()[0].close()
    assert [found.uid for found in bed.node.captured()] == ["uid-second"]


def test_the_same_uid_in_a_new_sandbox(bed: Bed, network: Network) -> None:
    first = network.pod("first", "10.77.0.2")
    bed.capture(first, "uid-app").close()
    second = network.pod("second", "10.77.0.2")
    new = bed.capture(second, "uid-app")
    assert_captured(second, new.outbound)
    assert {use.name: use.used for use in bed.node.usage()}["pods"] == 1


def test_two_nodes_on_one_host_keep_to_their_own_pods(bed: Bed, network: Network, pod: Pod) -> None:
    other_pod = network.pod("other", "10.77.0.3")
    with node_bed() as other:
        ours, theirs = bed.capture(pod, "uid-app"), other.capture(other_pod, "uid-app")
        assert_captured(pod, ours.outbound)
        assert_captured(other_pod, theirs.outbound)
        # Exempt on one node is a stranger on the other.
        theirs.outbound.close()
        with pytest.raises(ConnectionRefusedError):
            bed.ztunnel.dial(other_pod, FAR4)
        assert bed.node.counters()["captured_v4"] == 1
        assert all(found.is_tulle for found in bed.node.conflicts())
        assert {found.hook for found in bed.node.conflicts()} >= {"connect4", "sockops"}
    assert_captured(pod, ours.outbound)
    bed.node.destroy()
    assert not bed.pin_root.exists()


class Caller(threading.Thread):
    """Connects without a pause; the ztunnel's side checks each destination."""

    def __init__(self, pod: Pod, outbound: socket.socket) -> None:
        super().__init__()
        self._pod, self._outbound = pod, outbound
        self.stop = threading.Event()
        self.good, self.wrong = 0, 0

    def run(self) -> None:
        with self._pod.inside():  # this thread alone, for its whole life
            while not self.stop.is_set():
                with socket.create_connection(FAR4, 5):
                    accepted, _ = self._outbound.accept()
                    with accepted:
                        try:
                            same = original_destination(accepted) == FAR4
                        except OSError:
                            same = False
                        self.good, self.wrong = self.good + same, self.wrong + (not same)


def changed_source(folder: Path, number: int = 0) -> Path:
    """Programs that behave the same and are not the same code."""
    target = folder / f"bpf{number}"
    shutil.copytree(SOURCE, target)
    idle = f'__u64 idle; asm volatile("%0 = {number}" : "=r"(idle))'
    for path in target.glob("*.c"):
        # Every program starts with one more instruction.
        path.write_text(path.read_text().replace("__u64 netns = ", f"{idle};\n\t__u64 netns = "))
    return target


def map_ids(bed: Bed) -> set[int]:
    ids = set()
    for pin in (path for version in versions(bed.pin_root) for path in version.maps.iterdir()):
        with Map.open(pin) as opened:
            ids.add(opened.id)
    return ids


def assert_attached_once(bed: Bed, maps: set[int]) -> None:
    """One program on each of the root's hooks works on our maps; other nodes have theirs."""
    handle = os.open(bed.cgroup_root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for hook in ROOT_HOOKS:
            ours = 0
            for program in attached_programs(handle, HOOKS[hook].attach_type):
                try:
                    opened = program_by_id(program)
                except DatapathError:
                    continue  # another node went away
                ours += bool(program_info(opened).maps & maps)
                os.close(opened)
            assert (hook, ours) == (hook, 1)
    finally:
        os.close(handle)


@pytest.mark.parametrize("version", [None, "other"], ids=["same layout", "new layout"])
def test_programs_are_replaced_while_connects_run(
    bed: Bed, pod: Pod, far: Pod, tmp_path: Path, version: str | None
) -> None:
    listeners = bed.capture(pod, "uid-app")
    maps = map_ids(bed)
    caller = Caller(pod, listeners.outbound)
    caller.start()
    try:
        eventually(lambda: caller.good > 20, "connects run")
        bed.node.close()
        bed.node = bed.reopened(source=changed_source(tmp_path), version=version)
        after = caller.good
        eventually(lambda: caller.good > after + 20, "connects go on")
    finally:
        caller.stop.set()
        caller.join(10)
    assert caller.wrong == 0
    assert [found.uid for found in bed.node.captured()] == ["uid-app"]
    assert len(versions(bed.pin_root)) == 1
    assert_attached_once(bed, maps | map_ids(bed))
    with far.dial(("10.77.0.2", 15008)):
        listeners.hbone.accept()[0].close()
    assert bed.node.counters()["inbound_hbone"] == 1


def test_pods_of_a_version_with_other_slots_are_refused_until_the_ztunnel_is_back(
    bed: Bed, pod: Pod, far: Pod
) -> None:
    bed.node.close()
    bed.node = bed.reopened(version="older")
    listeners = bed.capture(pod, "uid-app")
    bed.node.close()
    (pins,) = versions(bed.pin_root)[0].pod_folders()
    (pins / "listeners").unlink()
    with Map.create(MapType.SOCKMAP, 4, 8, 2, name="listeners") as two:
        two.pin(pins / "listeners")
    bed.node = bed.reopened()
    assert [found.uid for found in bed.node.captured()] == ["uid-app"]
    with pod.listen("::", 8080, dual=True):
        for port in (8080, 15008):
            with pytest.raises(ConnectionRefusedError):
                far.dial(("10.77.0.2", port))
        with pytest.raises(ConnectionRefusedError):
            pod.dial(FAR4)
        bed.capture(pod, "uid-app", listeners)
        assert_captured(pod, listeners.outbound)
        with far.dial(("10.77.0.2", 8080)):
            listeners.plaintext.accept()[0].close()


def test_an_agent_that_restarts_all_the_time_costs_no_connection(
    bed: Bed, pod: Pod, tmp_path: Path
) -> None:
    sources = [SOURCE, changed_source(tmp_path, 1)]
    for source in sources:  # compiled beforehand: the restarts are to be quick
        bed.node.close()
        bed.node = bed.reopened(source=source)
    caller = Caller(pod, bed.capture(pod, "uid-app").outbound)
    caller.start()
    try:
        for turn in range(10):
            bed.node.close()
            bed.node = bed.reopened(source=sources[turn % 2])
    finally:
        caller.stop.set()
        caller.join(10)
    assert caller.good > 100
    assert caller.wrong == 0


def test_a_program_that_the_kernel_refuses_changes_nothing(
    bed: Bed, pod: Pod, tmp_path: Path
) -> None:
    listeners = bed.capture(pod, "uid-app")
    broken = changed_source(tmp_path)
    lookup = broken / "lookup.c"
    lookup.write_text(lookup.read_text().replace("sk_release(listener);", ""))  # leaks a socket
    with pytest.raises(ProgramRejected) as refused:
        bed.reopened(source=broken)
    assert "reference" in refused.value.verifier_log
    assert_captured(pod, listeners.outbound)
    assert_attached_once(bed, map_ids(bed))


def test_a_source_that_does_not_compile_is_told_by_file_and_line(bed: Bed, tmp_path: Path) -> None:
    broken = changed_source(tmp_path)
    peername = broken / "peername.c"
    peername.write_text(peername.read_text() + "int broken(void) { return nothing; }\n")
    line = len(peername.read_text().splitlines())
    with pytest.raises(CompileFailed, match=rf"peername\.c:{line}"):
        bed.reopened(source=broken)


def test_a_damaged_image_is_compiled_again(bed: Bed, tmp_path: Path) -> None:
    features = kernel_features()
    image = compile_image(SOURCE, tmp_path, features)
    (path,) = tmp_path.glob("*.json")
    path.write_bytes(path.read_bytes()[:-200])
    assert compile_image(SOURCE, tmp_path, features) == image


def test_a_foreign_program_on_our_hooks_is_reported(bed: Bed) -> None:
    hook = HOOKS["connect4"]
    allow = bytes.fromhex("b7000000010000009500000000000000")  # r0 = 1; exit
    handle = os.open(bed.cgroup_root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with (
            Program.load(hook.type, hook.attach_type, allow, name="somebody") as program,
            Link.create(program, handle, hook.attach_type, what="a foreign program"),
        ):
            (found,) = (each for each in bed.node.conflicts() if not each.is_tulle)
            assert (found.hook, found.program_name) == ("connect4", "somebody")
    finally:
        os.close(handle)


def test_an_exemption_dies_with_its_cgroup(bed: Bed) -> None:
    directory = bed.cgroup_root / (bed.ztunnel_cgroup.name + "-second")
    directory.mkdir()
    try:
        bed.node.exempt(directory)
        bed.node.exempt(directory)
        assert {use.name: use.used for use in bed.node.usage()}["exempt_cgroups"] == 2
    finally:
        directory.rmdir()

    def forgotten() -> bool:  # the kernel lets go of a removed cgroup a little later
        bed.node.unexempt(directory)
        return {use.name: use.used for use in bed.node.usage()}["exempt_cgroups"] == 1

    eventually(forgotten, "the exemption of a removed cgroup ends")
    bed.node.unexempt(bed.ztunnel_cgroup)
    assert {use.name: use.used for use in bed.node.usage()}["exempt_cgroups"] == 0


def test_every_program_loads_here() -> None:
    need_root()
    refused = {check.name: check.verifier_log for check in dry_load(CACHE) if not check.ok}
    assert refused == {}


def test_what_older_kernels_get_loads_as_well() -> None:
    need_root()
    image = compile_image(SOURCE, CACHE, ())  # none of the optional features
    assert [check.name for check in dry_load_image(image) if not check.ok] == []
