"""The lint of words (.ci/words.py) finds what it is for, and nothing else."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

WORDS = Path(__file__).resolve().parents[2] / ".ci" / "words.py"


def _lint() -> ModuleType:
    spec = importlib.util.spec_from_file_location("words", WORDS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


words = _lint()

CLEAN = '''"""Parser of pods."""

# Where a kernel lacks it, the host's way is taken.
# What follows a first line may open as it likes.
LIMIT = 5  # what one node holds
TEXT = "# of no interest: a string"


class Pod:
    """A pod. What it wants is in `Intent`."""
'''

DIRTY = {
    '"""What a node knows."""\n': (1, "What"),
    'def age() -> int:\n    """How old it is, in seconds."""\n': (2, "How"),
    'class Pod:\n    """Of one node."""\n': (2, "Of"),
    'async def ask() -> None:\n    """Whom to ask."""\n': (2, "Whom"),
    'flag("--spin", help="Whether to poll.")\n': (1, "Whether"),
    "x = 1\n# Whose turn it is.\ny = 2\n": (2, "Whose"),
    "x = 1  # of one pod\n": (1, "of"),
}


def _plant(root: Path, name: str, text: str) -> None:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_clean_file_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _plant(tmp_path, "agent/pods.py", CLEAN)
    assert words.main(tmp_path) == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(("text", "expected"), DIRTY.items(), ids=[w for _, w in DIRTY.values()])
def test_a_loose_opening_fails_with_file_and_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    text: str,
    expected: tuple[int, str],
) -> None:
    _plant(tmp_path, "ztunnel/mesh/planted.py", text)
    assert words.main(tmp_path) == 1
    line, opening = expected
    said = capsys.readouterr().out
    assert said.startswith(f"ztunnel/mesh/planted.py:{line}: ")
    assert said.endswith(f'opens with "{opening}"\n')


def test_comments_in_c_are_read_as_well(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _plant(tmp_path, "bpf/maps.h", "int a;\n/*\n * Who may talk to whom.\n */\nint b;\n")
    assert words.main(tmp_path) == 1
    assert capsys.readouterr().out == 'bpf/maps.h:2: comment opens with "Who"\n'


def test_a_long_line_of_a_document_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _plant(tmp_path, "DECISIONS.md", f"{'x' * 100}\n{'x' * 101}\n")
    assert words.main(tmp_path) == 1
    assert capsys.readouterr().out == "DECISIONS.md:2: 101 columns, at most 100\n"


def test_generated_code_is_left_alone(tmp_path: Path) -> None:
    _plant(tmp_path, "control/wire/node_pb2.py", '"""What protoc wrote."""\n')
    assert words.main(tmp_path) == 0
