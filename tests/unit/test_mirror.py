"""A mirror of the packages: each module has a test file at the same path, or is on a list that may
only shrink. `python -m tests.unit.test_mirror` takes off the list what has its tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("agent", "bpf", "control", "ztunnel")
LIST = Path("tests/unit/unmirrored.txt")
LISTED_MAX = 22  # goes down with the list, never up
NOT_MODULES = ("__init__.py", "__main__.py", "*_pb2.py", "*_pb2_grpc.py")  # doors, generated stubs


def modules(folder: Path) -> Iterator[Path]:
    """Every module of the package in `folder` and of the packages below it."""
    if not (folder / "__init__.py").exists() or folder.name == "_compiled":  # copies of the sources
        return
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            yield from modules(entry)
        elif entry.suffix == ".py" and not any(entry.match(pattern) for pattern in NOT_MODULES):
            yield entry


def mirror_of(module: Path) -> Path:
    """Path of the mirrored test: `control/kit/log.py` has `tests/unit/control/kit/test_log.py`."""
    return Path("tests/unit") / module.with_name(f"test_{module.name}")


def unmirrored(root: Path) -> set[str]:
    """Modules below `root` that have no mirrored test file."""
    found = (module.relative_to(root) for package in PACKAGES for module in modules(root / package))
    return {str(module) for module in found if not has_tests(root / mirror_of(module))}


def has_tests(file: Path) -> bool:
    """True for a file that is there and holds at least one test."""
    return file.exists() and "def test_" in file.read_text()


def listed(root: Path) -> list[str]:
    """Lines of the list of exceptions."""
    return (root / LIST).read_text().split()


def complaints(root: Path) -> list[str]:
    """One line for each module that is not where the list says it is."""
    actual, allowed = unmirrored(root), listed(root)
    new = [f"{name}: write {mirror_of(Path(name))}" for name in sorted(actual - set(allowed))]
    done = [f"{name}: remove it from {LIST}" for name in allowed if name not in actual]
    return new + done


def test_each_module_has_a_test_file_or_is_on_the_list() -> None:
    assert not complaints(ROOT), "\n".join(["", *complaints(ROOT)])


def test_the_list_is_sorted_and_names_each_module_once() -> None:
    assert listed(ROOT) == sorted(set(listed(ROOT)))


def test_the_list_does_not_grow() -> None:
    assert len(listed(ROOT)) <= LISTED_MAX


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A small tree: `agent/here.py` with a test, `agent/away.py` without one and on the list."""
    for name in ("agent", "agent/room", "tests/unit/agent"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "__init__.py").touch()
    for name in ("agent/here.py", "agent/away.py"):
        (tmp_path / name).touch()
    (tmp_path / "tests/unit/agent/test_here.py").write_text("def test_it() -> None: ...\n")
    (tmp_path / LIST).write_text("agent/away.py\n")
    return tmp_path


def test_a_tree_that_is_as_the_list_says_is_fine(tree: Path) -> None:
    assert complaints(tree) == []


def test_a_new_module_without_a_test_is_named(tree: Path) -> None:
    (tree / "agent/room/new.py").touch()
    assert complaints(tree) == ["agent/room/new.py: write tests/unit/agent/room/test_new.py"]


def test_an_empty_test_file_does_not_count(tree: Path) -> None:
    (tree / "tests/unit/agent/test_away.py").touch()
    assert complaints(tree) == []


def test_a_line_that_is_done_is_to_be_removed(tree: Path) -> None:
    (tree / "tests/unit/agent/test_away.py").write_text("def test_it() -> None: ...\n")
    assert complaints(tree) == [f"agent/away.py: remove it from {LIST}"]


def test_a_line_of_a_module_that_is_gone_is_to_be_removed(tree: Path) -> None:
    (tree / "agent/away.py").unlink()
    assert complaints(tree) == [f"agent/away.py: remove it from {LIST}"]


def test_stubs_doors_and_files_outside_a_package_need_no_test(tree: Path) -> None:
    (tree / "agent/shop").mkdir()
    for name in ("agent/zds_pb2.py", "agent/__main__.py", "agent/shop/app.py"):
        (tree / name).touch()
    assert complaints(tree) == []


def shrink(root: Path) -> None:
    """Take the lines off the list that are done; never add one."""
    left = sorted(unmirrored(root).intersection(listed(root)))
    (root / LIST).write_text("".join(f"{name}\n" for name in left))


def test_shrinking_never_adds_a_line(tree: Path) -> None:
    (tree / "agent/new.py").touch()
    (tree / "tests/unit/agent/test_away.py").write_text("def test_it() -> None: ...\n")
    shrink(tree)
    assert listed(tree) == []


if __name__ == "__main__":
    shrink(ROOT)
