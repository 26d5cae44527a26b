"""A module that is loaded when it is used first, for libraries that most processes never use.

An HTTP client costs each start 0.1 s and 10 MiB, and only a cluster needs it. The import is written
for readers and type checkers as always:

    if TYPE_CHECKING:
        import aiohttp
    else:
        aiohttp = lazy("aiohttp")
"""

from __future__ import annotations

import sys
from importlib.util import LazyLoader, find_spec, module_from_spec
from types import ModuleType


def lazy(name: str) -> ModuleType:
    """The module, loaded already or at its first attribute. ImportError, at once: there is none."""
    known = sys.modules.get(name)
    if known is not None:
        return known
    spec = find_spec(name)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    spec.loader = LazyLoader(spec.loader)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)  # only from now on: at the first attribute
    return module
