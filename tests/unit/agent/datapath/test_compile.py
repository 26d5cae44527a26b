"""The compiler's parts that need no compiler: joined text, relocations, the cache's guarantees."""

from __future__ import annotations

import ast
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.datapath import compile as compiler
from agent.datapath import programs
from agent.datapath.errors import CompileFailed

IMAGE: dict[str, Any] = {
    "format": compiler.FORMAT,
    "compiler": "bcc 0",
    "programs": {"connect4": {"code": "b7" + "00" * 15, "maps": [[0, 3]]}},
}


def test_all_sources_are_joined_and_their_lines_stay_true() -> None:
    text = compiler.program_text(programs.SOURCE)
    lines = text.splitlines()
    for name in compiler.HEADERS + compiler.HOOK_FILES:
        start = lines.index(f'#line 1 "{name}"') + 1
        source = (programs.SOURCE / name).read_text().splitlines()
        kept = lines[start : start + len(source)]
        assert [
            (ours, theirs)
            for ours, theirs in zip(source, kept, strict=True)
            if ours != theirs and not ours.startswith('#include "')
        ] == []


def test_every_c_file_is_compiled_and_every_program_has_a_hook() -> None:
    names = {path.name for path in programs.SOURCE.glob("*.[ch]")}
    assert names == set(compiler.HEADERS + compiler.HOOK_FILES)
    assert set(compiler.PROGRAMS) == set(programs.HOOKS)
    elsewhere = ("sklookup", "shortcut", "probe")
    assert set(programs.HOOKS) == {*programs.ROOT_HOOKS, *programs.ZTUNNEL_HOOKS, *elsewhere}


def test_relocations_are_map_loads_only() -> None:
    constant = struct.pack("<BBhi", 0x18, 0x01, 0, 7) + bytes(8)
    load = struct.pack("<BBhi", 0x18, 0x11, 0, 5) + bytes(8)
    assert compiler.relocations(constant + load + load) == [[2, 5], [4, 5]]


def test_what_the_compiler_seals_the_agent_reads() -> None:
    image = programs.parse_image(compiler.seal(IMAGE))
    assert image.compiler == "bcc 0"
    assert image.programs["connect4"].maps == ((0, 3),)
    assert compiler.unseal(compiler.seal(IMAGE)) == IMAGE


@given(st.data())
def test_one_flipped_bit_is_noticed(data: st.DataObject) -> None:
    sealed = bytearray(compiler.seal(IMAGE))
    position = data.draw(st.integers(0, len(sealed) - 2))  # the last byte is only a newline
    sealed[position] ^= 1 << data.draw(st.integers(0, 7))
    assert compiler.unseal(bytes(sealed)) is None
    with pytest.raises(CompileFailed):
        programs.parse_image(bytes(sealed))


@given(st.binary(max_size=200))
def test_a_foreign_file_is_no_image(data: bytes) -> None:
    assert compiler.unseal(data) is None


def test_a_cut_file_is_compiled_again(tmp_path: Path) -> None:
    path = tmp_path / "image"
    sealed = compiler.seal(IMAGE)
    path.write_bytes(sealed[: len(sealed) // 2])
    assert compiler.read_cached(path) is None
    assert compiler.read_cached(tmp_path / "absent") is None
    compiler.write_atomically(path, sealed)
    assert compiler.read_cached(path) == IMAGE
    assert [entry.name for entry in tmp_path.iterdir()] == ["image"]


def test_the_cache_keeps_the_newest(tmp_path: Path) -> None:
    for age in range(compiler.IMAGES_KEPT_MAX + 3):
        image = tmp_path / f"{age}.json"
        image.write_text("")
        os.utime(image, (1000 - age, 1000 - age))
    compiler.prune(tmp_path)
    kept = {f"{age}.json" for age in range(compiler.IMAGES_KEPT_MAX)}
    assert {path.name for path in tmp_path.iterdir()} == kept


def test_everything_that_shapes_the_image_is_in_its_name() -> None:
    base = compiler.cache_key("text", "bcc 1", ["A", "B"])
    assert compiler.cache_key("text", "bcc 1", ["B", "A"]) == base
    others = {
        compiler.cache_key("text2", "bcc 1", ["A", "B"]),
        compiler.cache_key("text", "bcc 2", ["A", "B"]),
        compiler.cache_key("text", "bcc 1", ["A"]),
    }
    assert len(others | {base}) == 4


def test_an_image_is_the_same_for_every_machine_of_a_byte_order() -> None:
    """One that is built for another architecture has its programs compiled by this one."""
    code = "from agent.datapath.compile import cache_key; print(cache_key('text', '', []))"
    found = {
        subprocess.run(
            [*other, sys.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout
        for other in ([], ["linux32"])  # which says that the machine is another
    }
    assert len(found) == 1


def test_the_compiler_stands_alone_and_is_old_python() -> None:
    source = Path(compiler.__file__).read_text()
    tree = ast.parse(source, feature_version=(3, 9))
    imported = {
        alias.name if isinstance(node, ast.Import) else node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in node.names
    }
    assert not any(name and name.split(".")[0] in ("agent", "bpf", "control") for name in imported)
    assert not any(isinstance(node, ast.Match) for node in ast.walk(tree))


def test_an_image_made_beforehand_needs_no_compiler(tmp_path: Path) -> None:
    text = compiler.program_text(programs.SOURCE)
    features = ["TULLE_HAS_MPTCP", "TULLE_HAS_DIRECT"]
    ready = compiler.ready_path(tmp_path, text, features)
    ready.write_bytes(compiler.seal(IMAGE))
    absent = tmp_path / "cache"
    for order in (features, features[::-1]):
        assert compiler.image_path(programs.SOURCE, absent, order, tmp_path) == ready
    assert compiler.ready_path(tmp_path, text, []) != ready
    assert compiler.ready_path(tmp_path, text + " ", features) != ready
    assert not absent.exists()


def test_every_set_of_features_is_made(tmp_path: Path) -> None:
    made: list[tuple[str, ...]] = []

    def build(text: str, defines: list[str]) -> dict[str, Any]:
        made.append(tuple(defines))
        return IMAGE

    features = list(programs.FEATURES)
    paths = compiler.make_ready(programs.SOURCE, tmp_path, features, build)
    assert len(set(paths)) == len(set(made)) == 2 ** len(features)
    wanted = features[2:0:-1]
    assert compiler.image_path(programs.SOURCE, tmp_path / "no", wanted, tmp_path) in paths
