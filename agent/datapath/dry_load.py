"""A trial of every program: loads all of them, attaches none, leaves nothing behind."""

import contextlib
from dataclasses import dataclass
from pathlib import Path

from agent.datapath import folder, programs
from agent.datapath.errors import DatapathError, ProgramRejected
from bpf import layout


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The kernel's verdict on one program."""

    name: str
    ok: bool
    verifier_log: str  # why not; empty when it is accepted


def dry_load(cache: Path, source: Path = programs.SOURCE) -> list[LoadResult]:
    """Try the programs as this kernel would get them."""
    return dry_load_image(programs.compile_image(source, cache, programs.kernel_features()))


def dry_load_image(image: programs.Image) -> list[LoadResult]:
    found = []
    with contextlib.ExitStack() as opened:
        maps = {
            name: opened.enter_context(folder.create_map(name))
            for name in layout.MAPS
            if image.uses(name)
        }
        for name in programs.HOOKS:
            try:
                image.load(name, maps).close()
                found.append(LoadResult(name, True, ""))
            except ProgramRejected as exc:
                found.append(LoadResult(name, False, exc.verifier_log))
            except DatapathError as exc:
                found.append(LoadResult(name, False, str(exc)))
    return found
