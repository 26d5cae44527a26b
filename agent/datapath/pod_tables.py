"""Tables of rules by port, one of a kind for each pod, as others tell them; decides nothing.

A table outlives us with the pod's other pins: while nobody can say otherwise, what was said last
holds. Without a table, or with an empty one, the ztunnel decides about every connection.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

from agent.datapath import folder, pods
from agent.datapath.folder import PinFolder
from bpf import layout

Rules = TypeVar("Rules")

# Rules may come before their pod is captured, and stay a while after its release.
TOLD_MAX = 2 * layout.PODS_MAX


class PodTables(Generic[Rules]):
    """`name` is the map's; `entries` makes its keys and values of rules."""

    def __init__(
        self, ours: PinFolder, name: str, entries: Callable[[Rules], dict[bytes, bytes]]
    ) -> None:
        self._folder = ours
        self._name = name
        self._entries = entries
        self._told: dict[str, Rules] = {}  # the oldest first

    def tell(self, uid: str, rules: Rules, *, is_captured: bool) -> None:
        self._told.pop(uid, None)
        self._told[uid] = rules
        if len(self._told) > TOLD_MAX:
            del self._told[next(iter(self._told))]
        if is_captured:
            self.write(uid)

    def forget(self, uid: str) -> None:
        """The pod is gone: nobody captures it again without being told anew."""
        self._told.pop(uid, None)

    def write(self, uid: str) -> None:
        """Make the pod's table, if there is none, and bring it up to date."""
        path = self._folder.pods / pods.pin_name(uid) / self._name
        with folder.adopt_map(path, self._name) as table:
            rules = self._told.get(uid)
            if rules is None:
                return  # what an earlier run wrote holds until somebody speaks
            wanted = self._entries(rules)
            for key in list(table):
                if key not in wanted:
                    table.delete(key)
            for key, value in wanted.items():
                table.update(key, value)
