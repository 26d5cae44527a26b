"""Our configuration follows the primary's, whatever happens to either."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from agent.cni.keeper import FIGHT_FIRST_S, MISSING_S, Keeper, uninstall
from agent.cni.places import Places
from tests.support.clock import FakeClock

PRIMARY = '{"cniVersion": "1.0.0", "name": "net", "plugins": [{"type": "%s"}]}'
ELF = b"\x7fELF"
OURS = "00-tulle.conflist"


class Node:
    """A host's folders and its keeper."""

    def __init__(self, root: Path, *, keeps_calls: bool = False) -> None:
        self.conf, self.bin, self.program = root / "conf", root / "bin", root / "program"
        self.conf.mkdir()
        self.bin.mkdir()
        self.program.write_bytes(ELF)
        (self.bin / "bridge").write_bytes(ELF)
        self.entry: Mapping[str, Any] | None = {"type": "tulle-cni"}
        self.clock = FakeClock()
        self.places = Places(self.conf, self.bin, "test", is_told=True, keeps_calls=keeps_calls)
        self.keeper = Keeper(self.places, self.program, lambda: self.entry, self.clock)

    def primary(self, kind: str = "bridge", name: str = "10-a.conflist") -> Path:
        path = self.conf / name
        path.write_text(PRIMARY % kind)
        return path

    def kinds(self, name: str = OURS) -> list[str]:
        """Types of the plugins in our configuration; none without it."""
        path = self.conf / name
        if not path.exists():
            return []
        return [each["type"] for each in json.loads(path.read_text())["plugins"]]


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_ours_is_the_primary_with_our_plugin_and_the_primary_stays(node: Node) -> None:
    path = node.primary()
    before = path.read_bytes()
    node.keeper.look()
    assert node.kinds() == ["bridge", "tulle-cni"]
    assert path.read_bytes() == before
    assert (node.bin / "tulle-cni").read_bytes() == ELF
    assert node.keeper.is_kept
    assert node.keeper.problem == ""
    node.keeper.look()
    assert node.keeper.written == 1, "what is there is not written again"


def test_ours_follows_a_primary_that_changes_and_one_that_sorts_before(node: Node) -> None:
    node.primary()
    node.keeper.look()
    node.primary("ptp")
    node.keeper.look()
    assert node.kinds() == ["ptp", "tulle-cni"]
    node.primary("cilium", "05-cilium.conflist")
    node.keeper.look()
    assert node.kinds() == ["cilium", "tulle-cni"]
    node.primary("multus", "00-multus.conflist")
    node.keeper.look()
    assert node.kinds() == []
    assert node.kinds("00-00-tulle.conflist") == ["multus", "tulle-cni"]
    assert min(os.listdir(node.conf)) == "00-00-tulle.conflist"


@pytest.mark.parametrize("text", ["", "{", PRIMARY[:30], "[]", PRIMARY % "tulle-cni"])
def test_a_primary_that_is_not_whole_changes_nothing(node: Node, text: str) -> None:
    path = node.primary()
    path.write_text(text)
    node.keeper.look()
    assert os.listdir(node.conf) == ["10-a.conflist"], "none is written"
    assert node.keeper.problem.startswith("10-a.conflist: ")
    assert not node.keeper.is_kept
    node.primary()
    node.keeper.look()
    path.write_text(text)
    node.keeper.look()
    assert node.kinds() == ["bridge", "tulle-cni"], "the last good one stays"
    assert path.read_text() == text, "it is not ours to repair"


def test_without_a_primary_none_is_made(node: Node) -> None:
    node.keeper.look()
    assert os.listdir(node.conf) == []
    node.conf.rmdir()
    node.keeper.look()
    assert "no configuration of a primary CNI" in node.keeper.problem


def test_a_primary_that_is_written_anew_leaves_ours_and_one_that_is_gone_does_not(
    node: Node,
) -> None:
    path = node.primary()
    node.keeper.look()
    path.unlink()
    node.keeper.look()
    node.clock.pass_s(MISSING_S - 1)
    node.keeper.look()
    assert node.kinds() == ["bridge", "tulle-cni"]
    node.primary()
    node.keeper.look()
    path.unlink()
    node.keeper.look()
    node.clock.pass_s(MISSING_S - 1)
    node.keeper.look()
    assert node.kinds() != []
    node.clock.pass_s(1)
    node.keeper.look()
    assert os.listdir(node.conf) == []


def test_nothing_is_written_before_the_namespaces_are_known(node: Node) -> None:
    node.primary()
    entry, node.entry = node.entry, None
    node.keeper.look()
    assert node.kinds() == []
    assert not (node.bin / "tulle-cni").exists()
    node.entry = entry
    node.keeper.look()
    assert node.kinds() == ["bridge", "tulle-cni"]


def test_without_the_program_nothing_names_it(node: Node) -> None:
    node.primary()
    node.program.unlink()
    node.keeper.look()
    assert node.kinds() == []
    assert "program" in node.keeper.problem
    node.program.write_bytes(ELF)
    (node.bin / "bridge").unlink()
    node.bin.rmdir()
    node.keeper.look()
    assert node.kinds() == []
    node.bin.mkdir()
    node.keeper.look()
    assert node.kinds() == ["bridge", "tulle-cni"]


def test_a_folder_without_the_primarys_programs_is_not_the_runtimes(node: Node) -> None:
    node.keeper.places = replace(node.places, is_told=False)
    node.primary("flannel")
    node.keeper.look()
    assert node.kinds() == []
    assert node.keeper.problem == f"{node.bin} is not the runtime's: it has no flannel"
    assert os.listdir(node.bin) == ["bridge"]
    (node.bin / "flannel").write_bytes(ELF)
    node.keeper.look()
    assert node.kinds() == ["flannel", "tulle-cni"]


def test_the_program_is_put_back(node: Node) -> None:
    node.primary()
    node.keeper.look()
    (node.bin / "tulle-cni").unlink()
    node.keeper.look()
    assert (node.bin / "tulle-cni").exists()


def test_a_program_that_fights_us_is_answered_ever_later(node: Node) -> None:
    node.primary()
    node.keeper.look()

    def taken_away() -> bool:
        (node.conf / OURS).unlink(missing_ok=True)
        node.keeper.look()
        return node.kinds() == []

    assert not taken_away(), "once may be an accident"
    assert taken_away()
    assert "another program" in node.keeper.problem
    node.clock.pass_s(2 * FIGHT_FIRST_S)
    assert not taken_away()
    node.clock.pass_s(FIGHT_FIRST_S)
    assert taken_away(), "the pause grows"
    node.primary("ptp")
    node.keeper.look()
    assert node.kinds() == ["ptp", "tulle-cni"], "news are written at once"


def test_uninstalling_takes_the_configuration_then_the_program(node: Node) -> None:
    path = node.primary()
    node.keeper.look()
    done = node.keeper.uninstall()
    assert done == {"configurations": [OURS], "program_removed": True, "program_kept": ""}
    assert os.listdir(node.conf) == [path.name]
    assert os.listdir(node.bin) == ["bridge"]
    node.keeper.look()
    assert os.listdir(node.bin) == ["bridge"], "it stays so"
    node.keeper.resume()
    assert node.kinds() == ["bridge", "tulle-cni"]
    assert node.keeper.uninstall()["program_removed"]
    assert not node.keeper.uninstall()["program_removed"], "it can be repeated"


def test_the_program_stays_while_another_configuration_names_it(node: Node) -> None:
    node.primary()
    node.keeper.look()
    (node.conf / "00-multus.conf").write_text('{"delegates": [{"type": "tulle-cni"}]}')
    done = uninstall(node.places)
    assert done["program_kept"] == "00-multus.conf still names it"
    assert (node.bin / "tulle-cni").exists()


def test_the_program_stays_for_a_runtime_that_remembers_it(tmp_path: Path) -> None:
    node = Node(tmp_path, keeps_calls=True)
    node.primary()
    node.keeper.look()
    assert "CRI-O" in node.keeper.uninstall()["program_kept"]
    assert node.kinds() == []


def test_a_running_keeper_sees_changes_at_once(node: Node) -> None:
    async def until(probe: Callable[[], bool]) -> None:
        while not probe():  # noqa: ASYNC110 - a file of another task
            await asyncio.sleep(0.005)

    async def run() -> None:
        node.primary()
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(node.keeper.run())
            for kind in ("bridge", "ptp", "macvlan"):
                node.primary(kind)  # in place: truncated, then written
                await until(partial(lambda kind: node.kinds() == [kind, "tulle-cni"], kind))
            node.entry = {"type": "tulle-cni", "exempt": ["a"]}
            node.keeper.wake()
            await until(lambda: "exempt" in (node.conf / OURS).read_text())
            running.cancel()
        assert node.kinds() == ["macvlan", "tulle-cni"], "a stop takes nothing away"

    asyncio.run(run())
