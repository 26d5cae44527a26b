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
    "AgentLeft": "to be renamed",
    "Block": "to be renamed",
    "Config": "to be renamed",
    "Connection": "to be renamed",
    "DirectPath": "to be renamed",
    "Entry": "to be renamed",
    "Hint": "to be renamed",
    "Kind": "to be renamed",
    "Listener": "to be renamed",
    "Pod": "to be renamed",
    "Reporter": "to be renamed",
    "Request": "to be renamed",
    "Response": "to be renamed",
    "Service": "to be renamed",
    "Session": "to be renamed",
    "Source": "to be renamed",
    "State": "to be renamed",
    "Stream": "to be renamed",
    "StreamEnded": "to be renamed",
    "Worker": "to be renamed",
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
