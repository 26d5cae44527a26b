"""Notes on labels of ours whose value or name is mistyped. Pure.

Such a label counts as not there, and its pods stay outside the mesh: nothing else would say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from control.server.compile.pods import MODE_LABELS, PATH_LABEL
from control.server.sources.objects import Meta, Objects
from control.server.sources.problem import Problem

LABEL_UNKNOWN: Final = "label_unknown"
_PREFIX: Final = "tulle.io/"
_KNOWN: Final = dict.fromkeys(MODE_LABELS, ("ambient", "none")) | {PATH_LABEL: ("direct", "tunnel")}
_OURS: Final = tuple(name for name in _KNOWN if name.startswith(_PREFIX))


def label_notes(found: Objects) -> Iterator[Problem]:
    """One for each namespace, and one for all pods of a namespace that say the same."""
    for each in found.namespaces:
        for said in _complaints(each.meta):
            yield _note(each.meta, said)
    alike: dict[tuple[str, str], list[Meta]] = {}
    for pod in found.pods:
        meta = pod.meta
        for name in meta.labels:  # each pod, at each change: most have none of ours
            if "io/" in name and not pod.is_terminal:
                for said in _complaints(meta):
                    alike.setdefault((meta.namespace, said), []).append(meta)
                break
    for (_, said), metas in alike.items():
        more = f" (and {len(metas) - 1} more pods)" if len(metas) > 1 else ""
        yield _note(metas[0], said + more)


def _note(meta: Meta, said: str) -> Problem:
    return Problem(meta.file, meta.line, str(meta.key), LABEL_UNKNOWN, said)


def _complaints(meta: Meta) -> Iterable[str]:
    """Sentences about the labels of one object; nearly always none."""
    for name, value in meta.labels.items():
        if name in _KNOWN:
            if value and value not in _KNOWN[name]:
                effect = "tunnel" if name == PATH_LABEL else "no label"
                yield f"label {name}: {value!r} is {_neither(name)}; it counts as {effect}"
        elif name.startswith(_PREFIX):
            near = get_close_matches(name, _OURS, 1)
            meant = f", did you mean {near[0]}?" if near else ""
            yield f"label {name} is not known{meant}; it has no effect"


def _neither(name: str) -> str:
    return "neither " + " nor ".join(_KNOWN[name])
