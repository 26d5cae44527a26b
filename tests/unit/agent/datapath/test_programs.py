"""Images of compiled programs, and a compiler that fails."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

from agent.datapath import programs
from agent.datapath.errors import CompileFailed, DatapathError, NotPermitted
from agent.datapath.programs import Bytecode, Image
from bpf import layout


def test_an_image_knows_which_maps_it_uses() -> None:
    pods = layout.MAPS["pods"].id
    image = Image("bcc 0", {"connect4": Bytecode(bytes(16), ((0, pods),))})
    assert image.uses("pods")
    assert not image.uses("flows")


def test_who_answers_is_attached_before_who_captures() -> None:
    order = programs.ROOT_HOOKS
    assert max(order.index(hook) for hook in order if "connect" not in hook) < min(
        order.index(hook) for hook in programs.CONNECT_HOOKS
    )


def test_a_compiler_that_fails_is_quoted(tmp_path: Path) -> None:
    with pytest.raises(CompileFailed, match="compile the BPF programs: "):
        programs.compile_image(tmp_path, tmp_path / "cache", ())


def test_a_compiler_that_crashes_is_said_to_have_crashed() -> None:
    crashed = subprocess.CompletedProcess(["compile"], -11, stdout="", stderr="")
    assert str(programs.failure(crashed)).endswith("programs: ended by Segmentation fault")


@pytest.mark.parametrize(
    ("refusal", "there"), [(None, True), (DatapathError("query programs", errno.EINVAL), False)]
)
def test_a_kernel_without_tcx_does_not_know_its_hook(
    refusal: DatapathError | None, there: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def query(device: int, attach_type: int) -> list[int]:
        asked.append((device, attach_type))
        if refusal is not None:
            raise refusal
        return []

    monkeypatch.setattr(programs, "attached_programs", query)
    assert programs.has_tcx() is there
    assert asked == [(1, programs.HOOKS["shortcut"].attach_type)]


def test_who_may_not_ask_does_not_conclude_that_tcx_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def query(device: int, attach_type: int) -> list[int]:
        raise NotPermitted("query programs", errno.EPERM)

    monkeypatch.setattr(programs, "attached_programs", query)
    with pytest.raises(NotPermitted):
        programs.has_tcx()
