"""The kubelet among processes, with plain folders for /proc and the cgroup2 tree."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.kubelet import finder
from agent.kubelet.finder import Kubelet
from agent.kubelet.reasons import Unrecognised


class Machine:
    def __init__(self, folder: Path) -> None:
        self.processes, self.root = folder / "proc", folder / "cgroup"
        self.namespaces = folder / "namespaces"
        self.namespaces.mkdir()
        for name in ("host", "pod"):
            (self.namespaces / name).touch()
        self.root.mkdir()
        self._namespace(self.processes / "thread-self", "host")

    def _namespace(self, folder: Path, name: str) -> None:
        (folder / "ns").mkdir(parents=True)
        (folder / "ns" / "net").symlink_to(self.namespaces / name)

    def process(
        self,
        pid: int,
        cgroup: str | None,
        *sockets: int,
        netns: str = "host",
        comm: str = "x",
        parent: int = 1,
    ) -> None:
        folder = self.processes / str(pid)
        self._namespace(folder, netns)
        (folder / "fd").mkdir()
        (folder / "fd" / "0").symlink_to("/dev/null")
        for number, inode in enumerate(sockets, 3):
            (folder / "fd" / str(number)).symlink_to(f"socket:[{inode}]")
        (folder / "comm").write_text(f"{comm}\n")
        (folder / "stat").write_text(f"{pid} ({comm}) S {parent} 0")
        said = f"0::/{'../elsewhere' if cgroup is None else cgroup}\n"
        (folder / "cgroup").write_bytes(os.fsencode(said))
        if cgroup is not None:
            directory = self.root / cgroup
            directory.mkdir(parents=True, exist_ok=True)
            with (directory / "cgroup.procs").open("a") as procs:
                procs.write(f"{pid}\n")

    def holders(self, *inodes: int) -> list[int]:
        return list(finder.holders(frozenset(inodes), self.processes))

    def chosen(self, *pids: int) -> Kubelet | Unrecognised:
        return finder.chosen(list(pids), self.root, self.processes)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


SERVICE = "system.slice/kubelet.service"
POD = "kubepods.slice/pod1/squatter"


def test_the_holder_of_a_listener_is_a_process_of_the_host(machine: Machine) -> None:
    machine.process(5, SERVICE, 70, 71)
    machine.process(6, POD, 70, netns="pod")
    machine.process(7, SERVICE, 72)
    assert machine.holders(70) == machine.holders(71) == [5]
    assert machine.holders(73) == []


def test_a_search_of_descriptors_has_an_end(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.process(5, SERVICE, 70)
    machine.process(6, SERVICE, 71)
    monkeypatch.setattr(finder, "DESCRIPTORS_MAX", 2)
    assert (machine.holders(70), machine.holders(71)) == ([5], [])


def test_the_kubelet_is_found_with_its_cgroup_and_those_who_share_it(machine: Machine) -> None:
    machine.process(5, "k3s", 70, comm="k3s-server")
    machine.process(6, "k3s", comm="containerd", parent=5)  # its own child
    machine.process(7, "k3s", comm="containerd-shim")
    machine.process(8, "k3s", comm="nginx", netns="pod")  # a container, of which no SYN counts
    assert machine.chosen(5) == Kubelet(5, machine.root / "k3s", ("containerd-shim",))


def test_a_neighbour_of_the_kubelet_may_call_itself_as_it_likes(machine: Machine) -> None:
    machine.process(10, "k3s", 77)
    machine.process(20, "k3s")
    (machine.processes / "20" / "comm").write_bytes(b"\xff\n")
    machine.process(30, "user/\udcff", 78)
    found = machine.chosen(10)
    assert isinstance(found, Kubelet)
    assert found.shared_with == ("\ufffd",)
    other = machine.chosen(30)
    assert isinstance(other, Kubelet)
    assert other.cgroup == machine.root / "user" / "\udcff"


def test_a_pod_on_the_hosts_network_that_takes_the_port_does_not_count(machine: Machine) -> None:
    machine.process(5, SERVICE, 70)
    machine.process(6, POD, 71, comm="kubelet")
    assert machine.chosen(5, 6) == Kubelet(5, machine.root / SERVICE)
    assert machine.chosen(6) is Unrecognised.IN_POD


def test_children_with_its_descriptors_are_no_second_kubelet(machine: Machine) -> None:
    machine.process(5, SERVICE, 70)
    machine.process(6, SERVICE, 70, parent=5)
    assert machine.chosen(5, 6) == Kubelet(5, machine.root / SERVICE)


def test_no_kubelet_is_better_than_a_guess(machine: Machine) -> None:
    machine.process(5, SERVICE, 70)
    machine.process(6, "user.slice/session-1.scope", 71)
    machine.process(7, "", 72)
    machine.process(8, None, 73)
    assert machine.chosen() is Unrecognised.NO_PROCESS
    assert machine.chosen(5, 6) is Unrecognised.SEVERAL
    assert machine.chosen(7) is Unrecognised.ROOT_CGROUP
    assert machine.chosen(8) is Unrecognised.NO_CGROUP
    assert machine.chosen(5, 8) is Unrecognised.NO_CGROUP
    assert machine.chosen(99) is Unrecognised.NOT_LISTENING  # it has ended


def test_nobody_listens_on_a_port_that_is_never_given() -> None:
    assert finder.listening(0) == frozenset()
    assert finder.find(0, Path("/")) is Unrecognised.NOT_LISTENING


def test_the_real_proc_can_be_read() -> None:
    assert os.getpid() not in finder.holders(frozenset({0}))
