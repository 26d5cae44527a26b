"""Programs of others on the hooks of this node: finds and names them, removes none."""

import os
from dataclasses import dataclass
from pathlib import Path

from agent.datapath import attach, programs
from agent.datapath.attach import Link
from agent.datapath.folder import PinFolder

_PROGRAM_PREFIX = "tulle_"


@dataclass(frozen=True, slots=True)
class Conflict:
    """A program of somebody else on a hook that this node uses."""

    hook: str
    program_id: int
    program_name: str
    is_tulle: bool  # another node of a lab, or leftovers


def at_root(ours: PinFolder, cgroup_root: Path) -> list[Conflict]:
    found: list[Conflict] = []
    handle = os.open(cgroup_root, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for hook in programs.ROOT_HOOKS:
            with Link.open(ours.links / hook) as link:
                own = link.info().program_id
            attach_type = programs.HOOKS[hook].attach_type
            attached = attach.attached_programs(handle, attach_type)
            found += _named(hook, [other for other in attached if other != own])
    finally:
        os.close(handle)
    return found


def in_pods(ours: PinFolder) -> list[Conflict]:
    own = set()
    inodes = set()
    for pins in ours.pod_folders():
        with Link.open(pins / "link") as link:
            info = link.info()
        own.add(info.id)
        inodes.add(info.target)
    inodes.discard(0)  # dead links of pods that are gone
    hook = programs.HOOKS["sklookup"]
    foreign = [
        link.program_id
        for link in attach.links()
        if link.type == attach.LINK_TYPE_NETNS
        and link.attach_type == hook.attach_type
        and link.target in inodes
        and link.id not in own
    ]
    return _named("sklookup", foreign)


def _named(hook: str, program_ids: list[int]) -> list[Conflict]:
    found = []
    for program_id in program_ids:
        fd = attach.program_by_id(program_id)
        if fd is None:
            continue  # unloaded since we listed it
        try:
            name = attach.program_info(fd).name
        finally:
            os.close(fd)
        found.append(Conflict(hook, program_id, name, name.startswith(_PROGRAM_PREFIX)))
    return found
