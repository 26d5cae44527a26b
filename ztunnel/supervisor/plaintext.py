"""Tells the agent at which ports of our pods the kernel may refuse plaintext by itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from control.wire.direct import Plaintext
from ztunnel.mesh.state import State
from ztunnel.supervisor.missing import ServedName


class PlaintextRefusals:
    """`tell` gives up silently while there is no agent; `again` tells the next one."""

    def __init__(self, state: State, tell: Callable[[Plaintext], bool]) -> None:
        self._state = state
        self._tell = tell
        self._told: dict[str, Plaintext] = {}
        # Changed since the mesh was last settled: these pods, and perhaps all of them.
        self._due: set[tuple[str, str]] = set()
        self._all_due = False

    def again(self) -> None:
        """This agent may know nothing of what was said before."""
        self._told.clear()

    def follow(self, pods: Iterable[ServedName], touched: Set[tuple[str, str]] | None) -> None:
        """A batch was applied. `touched`: namespace and name of the pods at which it may change a
        rule; None: of any. To look at all of a full node for each of its pods that comes or goes
        would cost the square of their number. The word that makes a change whole comes behind it,
        in a batch of its own that changes nothing."""
        self._all_due = self._all_due or touched is None
        self._due.update(touched or ())
        if not self._is_whole:
            return
        due, is_all = self._due, self._all_due
        self._due, self._all_due = set(), False
        if is_all:
            self.update(pods)
        elif due:
            for pod in pods:
                if (pod.namespace, pod.name) in due:
                    self.look(pod)

    def update(self, pods: Iterable[ServedName]) -> None:
        """Tell what has changed; these are all pods."""
        left = set(self._told)
        for pod in pods:
            left.discard(pod.uid)
            self.look(pod)
        for uid in left:
            del self._told[uid]

    def ready(self, pod: ServedName) -> None:
        """The pod was added, perhaps again: its registration waits for the line."""
        self._told.pop(pod.uid, None)
        self.look(pod)

    @property
    def _is_whole(self) -> bool:
        return self._state.synced and self._state.settled

    def look(self, pod: ServedName) -> None:
        """Tell of one pod, if that is news; in the middle of an update, once that is whole."""
        # Perhaps half an update: it closes no port, and opens none that was closed before it.
        if not self._is_whole:
            self._due.add((pod.namespace, pod.name))
            return
        line = self._of(pod)
        if line is not None and self._told.get(pod.uid) != line and self._tell(line):
            self._told[pod.uid] = line

    def _of(self, pod: ServedName) -> Plaintext | None:
        """None: the control plane has not told of it, and what was said before holds."""
        workload = self._state.local_workload(pod.namespace, pod.name, pod.service_account)
        if workload is None:
            return None
        found = self._state.in_force(workload).refused_ports()
        return Plaintext(pod.uid, found.everywhere, found.but)
