"""The switch between the ztunnel's sources and its compiled modules: decided once, when the package
is imported. A module that was not made from exactly these sources never runs.

`make compile` puts extension modules made from our own files into `_compiled` and records the
sources and the Python in a manifest. On any mismatch the sources run; $TULLE_COMPILED is `no` (run
the sources anyway) or `yes` (refuse to start instead).
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
# Foundations of a compiled module: layouts of classes, and constants, are compiled in.
_READ: Final = ("ztunnel", "control/model", "control/wire", "control/kit")
_SWITCH: Final = "TULLE_COMPILED"


def abi() -> str:
    """The Python that an extension module is for."""
    return EXTENSION_SUFFIXES[0]


def fingerprints(root: Path) -> dict[str, str]:
    """Hash of each source, by its path."""
    found = [path for folder in _READ for path in (root / folder).rglob("*.py")]
    return {
        str(path.relative_to(root)): source_hash(path.read_bytes()).hex() for path in sorted(found)
    }


def why_not(folder: Path, root: Path) -> str:
    """Reason why the modules in `folder` cannot stand for the sources in `root`; empty: they
    can."""
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
    """`yes`, or `no` with the reason; ImportError when `no` is not allowed."""
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
