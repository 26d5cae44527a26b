"""A pod of this node: its names, its network namespace, and everything that is open for it."""

from __future__ import annotations

from typing import Final, Protocol

from control.model.workload import Workload
from ztunnel.connections.doubts import Doubts
from ztunnel.connections.lanes import Lanes
from ztunnel.mesh.roles import Asked
from ztunnel.mesh.route import ToTunnel
from ztunnel.mesh.state import State
from ztunnel.mesh.workloads import claim
from ztunnel.telemetry.outcome import Outcome
from ztunnel.tenants.tenancy import Kind, Tenancy
from ztunnel.transport.ends import RelayEnd
from ztunnel.transport.tunnel import Tunnel


class OpenConnection(Protocol):
    """A connection of a pod, from its accept to its end."""

    outcome: Outcome

    def abort(self, reason: RelayEnd) -> None: ...

    def on_bug(self) -> None: ...

    def recheck(self, workload: Workload | None) -> None:
        """Policies changed: end it if it is no longer allowed."""


# Destinations remembered between two reports of their use; names beyond them look idle.
DIALLED_MAX: Final = 4096

# Connections of a pod, and who pays for each.
Book = dict[OpenConnection, Tenancy | None]


class Listening(Protocol):
    def take_rest(self) -> None:
        """Accept what waits: the kernel resets it when the listener is closed."""

    def close(self) -> None: ...


class Observer(Protocol):
    def admitted(self, pod: Pod, source: Workload, asked: Asked, decision: ToTunnel) -> None:
        """The other side let in a connection of `pod` to `asked`."""


class Pod:
    def __init__(
        self,
        uid: str,
        name: str,
        namespace: str,
        service_account: str,
        netns_fd: int,
        *,
        observer: Observer | None = None,
    ) -> None:
        """`netns_fd`: -1 is the namespace of this process. `observer`: hears of its connections
        where the kernel may carry some itself."""
        self.uid = uid
        self.name = name
        self.namespace = namespace
        self.service_account = service_account
        self.netns_fd = netns_fd
        self.observer = observer
        self.listeners: list[Listening] = []
        self.gone = False
        self.own_ports: set[int] = set()
        self.outbound: Book = {}
        self.inbound: Book = {}
        self.tunnels: dict[Tunnel, None] = {}  # opened to it by peers
        self.lanes = Lanes(uid)
        self.doubts = Doubts()
        self.dialled: set[Asked] = set()  # lately, where addresses come on demand
        self.claim = claim(namespace, name, service_account)
        self.tenant: Final = Tenancy(Kind.POD, f"{namespace}/{name}")
        self._workload: Workload | None = None
        self._generation = -1

    def workload(self, state: State) -> Workload | None:
        """The control plane's word about this pod; None as long as there is none."""
        if self._generation != state.generation:
            self._workload = state.local_workload(self.namespace, self.name, self.service_account)
            self._generation = state.generation
        return self._workload

    def dials(self, asked: Asked) -> None:
        """Note that the names of a destination are in use."""
        if len(self.dialled) < DIALLED_MAX:
            self.dialled.add(asked)

    def stop_listening(self) -> None:
        for listener in self.listeners:
            listener.close()
        self.listeners.clear()
