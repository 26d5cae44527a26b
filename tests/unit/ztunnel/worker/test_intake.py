"""Frames of the supervisor: in order, a share each turn, whatever their size."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from control.kit.errors import WireError
from ztunnel.ipc import Frame, FrameKind
from ztunnel.mesh.entries import Entry, Op, encode_entries
from ztunnel.worker.intake import ENTRIES_PER_STEP, TURN_S, Intake


class Rig:
    """A clock that a step moves by as much as the test says."""

    def __init__(self, step_s: float) -> None:
        self.seen: list[str] = []
        self._now_s = 0.0
        self._step_s = step_s
        self.intake = Intake(self._act, self._apply, lambda: self._now_s)

    def _act(self, frame: Frame) -> None:
        self._now_s += self._step_s
        self.seen.append(frame.kind.name)

    def _apply(self, entries: Sequence[Entry]) -> None:
        self._now_s += self._step_s
        self.seen += [entry.name for entry in entries]

    def turns(self) -> int:
        count = 0
        while self.intake.busy:
            self.intake.work()
            count += 1
        return count


def resources(first: int, count: int) -> Frame:
    entries = [Entry(Op.REMOVE_ADDRESS, str(number)) for number in range(first, first + count)]
    return Frame(FrameKind.RESOURCES, encode_entries(entries))


def test_nothing_overtakes_what_came_before() -> None:
    rig = Rig(TURN_S)
    rig.intake.add([Frame(FrameKind.POD_ADD), resources(0, 20), Frame(FrameKind.GENERATION)])
    rig.intake.work()
    rig.intake.add([resources(20, 20), Frame(FrameKind.QUERY)])
    rig.turns()
    numbers = [str(number) for number in range(40)]
    assert rig.seen == ["POD_ADD", *numbers[:20], "GENERATION", *numbers[20:], "QUERY"]


def test_a_turn_ends_with_the_step_that_used_up_its_time() -> None:
    rig = Rig(TURN_S)
    rig.intake.add([resources(0, 3 * ENTRIES_PER_STEP)])
    rig.intake.work()
    assert len(rig.seen) == ENTRIES_PER_STEP
    assert rig.intake.busy


def test_a_quick_push_takes_one_turn() -> None:
    rig = Rig(0.0)
    rig.intake.add([resources(0, 100), resources(100, 100), Frame(FrameKind.QUERY)])
    assert rig.turns() == 1
    assert len(rig.seen) == 201


def test_a_broken_frame_is_told() -> None:
    rig = Rig(0.0)
    rig.intake.add([Frame(FrameKind.RESOURCES, b"\x01")])
    with pytest.raises(WireError):
        rig.intake.work()
