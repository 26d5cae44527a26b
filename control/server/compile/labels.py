"""Notes on labels of ours whose value or name is mistyped. Pure.

Such a label counts as not there, and its pods stay outside the mesh: nothing else would say so.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from difflib import get_close_matches
from typing import Final

from control.server.compile.notebook import Notebook
from control.server.compile.pods import MODE_LABELS, PATH_LABEL
from control.server.sources.objects import Key, Meta
from control.server.sources.problem import Problem

LABEL_UNKNOWN: Final = "label_unknown"
_PREFIX: Final = "tulle.io/"
_KNOWN: Final = dict.fromkeys(MODE_LABELS, ("ambient", "none")) | {PATH_LABEL: ("direct", "tunnel")}
_Saying = tuple[str, str]  # namespace, and what is said
_OURS: Final = tuple(name for name in _KNOWN if name.startswith(_PREFIX))


class LabelNotes:
    """One for each namespace, and one for all pods of a namespace that say the same."""

    def __init__(self, notebook: Notebook) -> None:
        self._notebook = notebook
        self._said: dict[Key, tuple[str, ...]] = {}  # by pods
        self._alike: dict[_Saying, dict[Key, Meta]] = {}
        self._stale: set[_Saying] = set()

    def put_namespace(self, key: Key, meta: Meta | None) -> None:
        said = () if meta is None else _complaints(meta)
        self._notebook.put("label", key, [_note(meta, each) for each in said if meta is not None])

    def put_pod(self, key: Key, meta: Meta | None) -> None:
        """None for one that has ended."""
        for said in self._said.pop(key, ()):
            saying = key.namespace, said
            del self._alike[saying][key]
            self._stale.add(saying)
        if meta is None or "io/" not in " ".join(meta.labels):
            return  # most have none of ours
        if found := tuple(_complaints(meta)):
            self._said[key] = found
            for said in found:
                saying = key.namespace, said
                self._alike.setdefault(saying, {})[key] = meta
                self._stale.add(saying)

    def settle(self) -> Iterator[None]:
        while self._stale:
            saying = self._stale.pop()
            metas = self._alike[saying]
            notes = []
            if metas:
                more = f" (and {len(metas) - 1} more pods)" if len(metas) > 1 else ""
                notes.append(_note(metas[min(metas)], saying[1] + more))
            else:
                del self._alike[saying]
            self._notebook.put("alike", Key("Pod", *saying), notes)
            yield


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
