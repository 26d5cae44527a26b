"""A class name means one thing in the whole product: no two modules define the same one."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CLASS = re.compile(r"^\s*class (\w+)", re.MULTILINE)  # parsing them all takes seconds
PACKAGES = ("agent", "bpf", "control", "ztunnel")

# Name -> why two modules may define it. This list may only shrink.
ALLOWED: dict[str, str] = {
    "Hint": "the kernel's draw, in the maps' contract and in the ztunnel, which knows no map",
}


def _classes() -> dict[str, list[str]]:
    """Class names that more than one module defines -> paths of those modules."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            if name.endswith("_pb2.py") or "/_compiled/" in name:
                continue
            for class_name in CLASS.findall(path.read_text()):
                found[class_name].append(name)
    return {name: paths for name, paths in found.items() if len(paths) > 1}


def test_a_class_name_is_defined_once() -> None:
    assert {name: paths for name, paths in _classes().items() if name not in ALLOWED} == {}


def test_the_list_of_exceptions_holds_no_other_name() -> None:
    assert _classes().keys() >= ALLOWED.keys()
