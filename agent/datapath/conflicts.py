"""Other programs on the hooks that this node uses: finds and names them; removes none."""

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from agent.datapath import bpfsys, programs
from agent.datapath.bpfsys import Link
from agent.datapath.errors import KernelError
from agent.datapath.folder import Folder

_PROGRAM_PREFIX = "tulle_"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A program that is not this node's on a hook that this node uses."""

    hook: str
    program_id: int
    program_name: str
    is_tulle: bool  # another node of a lab, or leftovers


def at_root(ours: Folder, cgroup_root: Path) -> list[Conflict]:
    found: list[Conflict] = []
    handle = os.open(cgroup_root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for hook in programs.ROOT_HOOKS:
            with Link.open(ours.links / hook) as link:
                own = link.info().program_id
            attach_type = programs.HOOKS[hook].attach_type
            attached = bpfsys.attached_programs(handle, attach_type)
            found += _named(hook, [other for other in attached if other != own])
    finally:
        os.close(handle)
    return found


def in_pods(ours: Folder) -> list[Conflict]:
    own = set()
    inodes = set()
    for pins in ours.pod_folders():
        with Link.open(pins / "link") as link:
            info = link.info()
        own.add(info.id)
        inodes.add(info.target)
    inodes.discard(0)  # pods that are gone: every dead link says 0
    hook = programs.HOOKS["sklookup"]
    foreign = [
        link.program_id
        for link in bpfsys.links()
        if link.type == bpfsys.LINK_TYPE_NETNS
        and link.attach_type == hook.attach_type
        and link.target in inodes
        and link.id not in own
    ]
    return _named("sklookup", foreign)


def _named(hook: str, program_ids: list[int]) -> list[Conflict]:
    found = []
    for program_id in program_ids:
        try:
            fd = bpfsys.program_by_id(program_id)
        except KernelError as exc:
            if exc.number == errno.ENOENT:
                continue  # unloaded since we listed it
            raise
        try:
            name = bpfsys.program_info(fd).name
        finally:
            os.close(fd)
        found.append(Conflict(hook, program_id, name, name.startswith(_PROGRAM_PREFIX)))
    return found
