"""Whether this process runs the ztunnel's compiled modules: decides it once, when the package is
imported, and never lets one run that was not made from the very sources that lie here.

`make compile` puts extension modules made from our own files into `_compiled` and notes in a
manifest which sources it has read and for which Python. Whatever does not fit leaves the sources
in force; $TULLE_COMPILED says `no` (leave them in force anyway) or `yes` (refuse to start instead).
"""

from __future__ import annotations

import json
import os
from collections.abc import MutableSequence
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import source_hash
from pathlib import Path
from typing import Final

PACKAGE: Final = Path(__file__).parent
FOLDER: Final = PACKAGE / "_compiled"
MANIFEST: Final = "manifest.json"
# What a compiled module has been built upon: layouts of classes and constants go over into it.
_READ: Final = ("ztunnel", "control/model", "control/wire", "control/kit")
_SWITCH: Final = "TULLE_COMPILED"


def abi() -> str:
    """Which Python an extension module is for."""
    return EXTENSION_SUFFIXES[0]


def fingerprints(root: Path) -> dict[str, str]:
    """A hash of each source, by its path."""
    found = [path for folder in _READ for path in (root / folder).rglob("*.py")]
    return {
        str(path.relative_to(root)): source_hash(path.read_bytes()).hex() for path in sorted(found)
    }


def why_not(folder: Path, root: Path) -> str:
    """Why the modules in `folder` cannot stand for the sources in `root`; empty: they can."""
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
    except FileNotFoundError:
        return "not built"
    if manifest["abi"] != abi():
        return f"built for {manifest['abi']}"
    now, then = fingerprints(root), manifest["sources"]
    changed = sorted(path for path in now.keys() | then.keys() if now.get(path) != then.get(path))
    return f"stale: {changed[0]} has changed" if changed else ""


def decide(wish: str, folder: Path, root: Path) -> str:
    """`yes`, or `no` and why; ImportError when it must not be no."""
    if wish == "no":
        return "no (switched off)"
    reason = why_not(folder, root)
    if reason and wish == "yes":
        raise ImportError(f"{_SWITCH}=yes, but the compiled modules cannot be used: {reason}")
    return f"no ({reason})" if reason else "yes"


COMPILED: Final = decide(os.environ.get(_SWITCH, ""), FOLDER, PACKAGE.parent)


def prefer(path: MutableSequence[str], subpackage: str = "") -> None:
    """Put the compiled modules of a package before its sources."""
    if COMPILED == "yes":
        path.insert(0, str(FOLDER / subpackage))
