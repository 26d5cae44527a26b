"""The sk_lookup programs: one for each pod, with maps of its own; loads, replaces and attaches.

The verifier takes three milliseconds for one, so it may be prepared by a thread.
"""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from agent.datapath import folder, programs
from agent.datapath.attach import Link, Program
from agent.datapath.maps import Map
from control.model.address import Address

POD_MAPS = ("listeners", "plaintext", "probes", "refused")  # those that sk_lookup uses


@dataclass(frozen=True, slots=True)
class Prepared:
    """A program and its maps, which belong to no pod yet, and the namespace with these addresses
    that is ready for a capture."""

    maps: Mapping[str, Map]
    program: Program
    cookie: int
    addresses: tuple[Address, ...]

    def close(self) -> None:
        """Close the descriptors; what is pinned stays."""
        self.program.close()
        for each in self.maps.values():
            each.close()


class LookupPrograms:
    def __init__(self, image: programs.Image, maps: Mapping[str, Map]) -> None:
        self._image = image
        self._maps = maps  # the node's

    def prepare(self, cookie: int, addresses: tuple[Address, ...]) -> Prepared:
        """Make one for a pod that is captured next; in any thread."""
        with contextlib.ExitStack() as opened:
            of_pod = {each: opened.enter_context(folder.create_map(each)) for each in POD_MAPS}
            program = self._image.load("sklookup", {**self._maps, **of_pod})
            made = Prepared(of_pod, program, cookie, addresses)
            opened.pop_all()
        return made

    @contextlib.contextmanager
    def program(self, pins: Path) -> Iterator[Program]:
        """A program that reads the pinned maps; those that are missing are made."""
        with contextlib.ExitStack() as opened:
            # A pod that another version captured may lack one.
            of_pod = {
                each: opened.enter_context(folder.adopt_map(pins / each, each)) for each in POD_MAPS
            }
            with self._image.load("sklookup", {**self._maps, **of_pod}) as loaded:
                yield loaded

    def replace(self, pins: Path) -> bool:
        """Bring a link up to date; False: its namespace is gone, nothing to run on."""
        with self.program(pins) as program, Link.open(pins / "link") as link:
            if not link.info().target:
                return False
            link.replace(program)
        return True

    def attach(self, pins: Path, netns_fd: int, prepared: Prepared | None, *, what: str) -> None:
        """Pin a link to that namespace, with the program whose maps are pinned already."""
        attach_type = programs.HOOKS["sklookup"].attach_type
        with contextlib.ExitStack() as opened:
            if prepared is None:
                program = opened.enter_context(self.program(pins))
            else:
                program = prepared.program
            with Link.create(program, netns_fd, attach_type, what=what) as link:
                link.pin(pins / "link")


def pin_maps(pins: Path, prepared: Prepared | None) -> Prepared | None:
    """Pin the maps of a prepared program; None: it is not to be used, as some are there."""
    if prepared is None or any((pins / each).exists() for each in POD_MAPS):
        return None
    for name, each in prepared.maps.items():
        each.pin(pins / name)
    return prepared
