"""Python that means something else once mypyc has compiled it, found in the sources.

`make compiled` would find it as well, minutes later, if a test happens to go there."""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def compiled() -> dict[str, Path]:
    """Modules that are compiled, by name."""
    spec = importlib.util.spec_from_file_location("compile", ROOT / ".ci/compile.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        found = list(map(Path, made.modules()))
    return {".".join(each.with_suffix("").parts): ROOT / each for each in found}


def sums_of_floats(tree: ast.AST) -> Iterator[int]:
    """Lines of a sum() whose generator may give floats: compiled, it adds ints and nothing else, as
    it begins with 0. math.fsum() is for those."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(ast.Name("sum"), [ast.GeneratorExp(ast.Call(ast.Name("len")))]):
                pass
            case ast.Call(ast.Name("sum"), [ast.GeneratorExp(ast.Constant(int()))]):
                pass
            case ast.Call(ast.Name("sum"), [ast.GeneratorExp()]):
                yield node.lineno


def heirs(tree: ast.AST, names: Mapping[str, Path]) -> Iterator[str]:
    """Classes here whose base is a compiled one: such a base refuses heirs that are not."""
    bases = {
        each.asname or each.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in names
        for each in node.names
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and bases & set(map(ast.unparse, node.bases)):
            yield node.name


def test_sums_add_ints_or_are_fsums() -> None:
    found = {
        name: lines
        for name, path in compiled().items()
        if (lines := list(sums_of_floats(ast.parse(path.read_text()))))
    }
    assert found == {}


def test_no_class_derives_from_a_compiled_one_unless_it_is_compiled_too() -> None:
    names = compiled()
    others = [
        path
        for folder in ("ztunnel", "tests")
        for path in (ROOT / folder).rglob("*.py")
        if path not in names.values() and "from ztunnel." in path.read_text()
    ]
    found = {
        str(path.relative_to(ROOT)): classes
        for path in others
        if (classes := list(heirs(ast.parse(path.read_text()), names)))
    }
    assert found == {}


def test_no_test_of_the_ztunnel_replaces_a_method() -> None:
    """Compiled, it is read-only: what comes of the call is to be looked at."""
    tests = (ROOT / "tests/unit/ztunnel").rglob("*.py")
    assert [each.name for each in tests if "ignore[method-assign]" in each.read_text()] == []


def test_the_traps_are_seen() -> None:
    tree = ast.parse("sum(s for s in x)\nsum(len(s) for s in x)\nsum(1 for s in x)\nsum(x)")
    assert list(sums_of_floats(tree)) == [1]
    names = compiled()
    name = "ztunnel.transport.relay"
    assert name in names
    tree = ast.parse(f"from {name} import StreamRelay\nclass Fake(StreamRelay): pass")
    assert list(heirs(tree, names)) == ["Fake"]
