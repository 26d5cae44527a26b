"""The import graph of each process, from the sources: no circles, and no room above its importer.

import-linter keeps the layers too, but it counts what it is told to count. This counts every import
statement there is: those in functions and those for the type checker alone as well.
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROCESSES = ("agent", "control", "ztunnel")
# Packages that hold rooms in layers, as pyproject.toml has them.
CONTAINERS = ("agent", "control", "control.server", "ztunnel")

Graph = Mapping[str, set[str]]  # a module or room -> those it imports


def name_of(path: Path) -> str:
    """`ztunnel/mesh/route.py` -> `ztunnel.mesh.route`; a package's `__init__.py` is the package."""
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(text: str) -> Iterator[str]:
    """Names in the import statements of a source, wherever they stand."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield from (f"{node.module}.{each.name}" for each in node.names)


def graph_of(sources: Mapping[str, str]) -> dict[str, set[str]]:
    """Imports among the modules of `sources` (name -> text). A name inside a module counts as the
    module."""
    graph: dict[str, set[str]] = {}
    for module, text in sources.items():
        found = {name if name in sources else name.rpartition(".")[0] for name in imported(text)}
        graph[module] = (found & sources.keys()) - {module}
    return graph


def circle_in(graph: Graph) -> list[str]:
    """One circle, if there is any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as exc:
        return list(exc.args[1])
    return []


def rooms_of(graph: Graph, container: str) -> dict[str, set[str]]:
    """The same graph with the modules of a room (`container.room...`) drawn together."""

    def room(module: str) -> str:
        return module.removeprefix(f"{container}.").partition(".")[0]

    rooms: dict[str, set[str]] = {}
    for module, targets in graph.items():
        if module.startswith(f"{container}."):
            inside = {room(each) for each in targets if each.startswith(f"{container}.")}
            rooms.setdefault(room(module), set()).update(inside - {room(module)})
    return rooms


def arrows_up(rooms: Graph, layers: Iterable[str]) -> list[str]:
    """Imports that do not lead to a lower layer. `layers`: highest first, siblings as `a | b`."""
    floor: dict[str, int] = {}
    for number, layer in enumerate(layers):
        floor |= {room.strip(): number for room in layer.split("|")}
    return [
        f"{room} -> {target}"
        for room, targets in sorted(rooms.items())
        for target in sorted(targets)
        if floor[target] <= floor[room]
    ]


@cache
def process_graph(package: str) -> dict[str, set[str]]:
    paths = (path.relative_to(ROOT) for path in (ROOT / package).rglob("*.py"))
    return graph_of(
        {
            name_of(path): (ROOT / path).read_text()
            for path in paths
            if "_compiled" not in path.parts
        }
    )


@cache
def declared_layers() -> dict[str, list[str]]:
    """Container -> its layers, from the import contracts."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    contracts = settings["tool"]["importlinter"]["contracts"]
    layered = (each for each in contracts if each["type"] == "layers")
    return {name: each["layers"] for each in layered for name in each["containers"]}


@pytest.mark.parametrize("package", PROCESSES)
def test_no_module_imports_itself_by_a_detour(package: str) -> None:
    assert circle_in(process_graph(package)) == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_no_room_imports_itself_by_a_detour(container: str) -> None:
    assert circle_in(rooms_of(process_graph(container.partition(".")[0]), container)) == []


@pytest.mark.parametrize("container", CONTAINERS)
def test_rooms_import_downwards(container: str) -> None:
    rooms = rooms_of(process_graph(container.partition(".")[0]), container)
    assert arrows_up(rooms, declared_layers()[container]) == []


# -- the measure itself --------------------------------------------------------------------------


def test_an_import_for_the_type_checker_counts() -> None:
    graph = graph_of(
        {
            "p.a": "if TYPE_CHECKING:\n    from p.b import B\n",
            "p.b": "def late() -> None:\n    from p import a\n",
        }
    )
    assert graph == {"p.a": {"p.b"}, "p.b": {"p.a"}}
    assert circle_in(graph)


def test_rooms_are_drawn_from_their_modules() -> None:
    graph = graph_of(
        {
            "p.main": "import p.high.door",
            "p.high.door": "from p.low.deep import thing\nfrom p.high import other",
            "p.high.other": "import os",
            "p.low.deep": "thing = 1",
        }
    )
    assert circle_in(graph) == []
    rooms = rooms_of(graph, "p")
    assert rooms == {"main": {"high"}, "high": {"low"}, "low": set()}
    assert arrows_up(rooms, ["main", "high", "low"]) == []
    assert arrows_up(rooms, ["main", "low", "high"]) == ["high -> low"]
    assert arrows_up(rooms, ["main", "high | low"]) == ["high -> low"]


def test_a_circle_of_rooms_need_not_be_one_of_modules() -> None:
    graph = graph_of(
        {"p.a.one": "import p.b.one", "p.a.two": "", "p.b.one": "", "p.b.two": "import p.a.two"}
    )
    assert circle_in(graph) == []
    assert circle_in(rooms_of(graph, "p"))


LINES_MAX = 400  # a file that is longer is two


def test_no_file_is_too_long_to_be_read_in_one_go() -> None:
    folders = (*PROCESSES, "bpf", "tests")
    files = [
        path
        for folder in folders
        for path in (ROOT / folder).rglob("*")
        if path.suffix in (".py", ".c", ".h")
    ]
    assert len(files) > 600
    long = {path: path.read_text().count("\n") for path in files}
    assert {path: lines for path, lines in long.items() if lines > LINES_MAX} == {}
