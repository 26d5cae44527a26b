"""Version of the installed product."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

UNKNOWN = "unknown"


def version(folders: Iterable[str] | None = None) -> str:
    """Version of the installed wheel; `unknown` for a checkout that was never installed.

    The name of the wheel's folder says it. `importlib.metadata` would say it too, but loads 1.4 MiB
    of modules that our processes do not need otherwise.
    """
    for folder in sys.path if folders is None else folders:
        for found in sorted(Path(folder).glob("tulle-*.dist-info")):
            return found.name.removesuffix(".dist-info").partition("-")[2]
    return UNKNOWN
