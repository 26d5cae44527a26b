"""Pods' tables of ports at which the kernel refuses plaintext; decides nothing.

A table outlives us with the pod's other pins: while nobody can say otherwise, what was refused is
refused. Without a table, or with an empty one, the ztunnel accepts and then refuses.
"""

from agent.datapath import folder, pods
from agent.datapath.entries import PlaintextRules, plaintext_entries
from agent.datapath.folder import PinFolder
from bpf import layout

# Rules may come before their pod is captured, and stay a while after its release.
TOLD_MAX = 2 * layout.PODS_MAX


class PlaintextTables:
    def __init__(self, ours: PinFolder) -> None:
        self._folder = ours
        self._told: dict[str, PlaintextRules] = {}  # the oldest first

    def tell(self, uid: str, rules: PlaintextRules, *, is_captured: bool) -> None:
        self._told.pop(uid, None)
        self._told[uid] = rules
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        if is_captured:
            self.write(uid)

    def write(self, uid: str) -> None:
        """Make the pod's table, if there is none, and bring it up to date."""
        path = self._folder.pods / pods.pin_name(uid) / "plaintext"
        with folder.adopt_map(path, "plaintext") as table:
            rules = self._told.get(uid)
            if rules is None:
                return  # what an earlier run wrote holds until the ztunnel speaks
            wanted = plaintext_entries(rules)
            for key in list(table):
                if key not in wanted:
                    table.delete(key)
            for key, value in wanted.items():
                table.update(key, value)
