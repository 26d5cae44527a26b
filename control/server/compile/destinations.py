"""Everything that can be dialled: workloads, services, and places that only slices name. Pure.

News of one object makes others stale: a pod that changes hands over its addresses, a service is
selected by pods, a slice names them. `settle` makes anew what is stale and nothing else.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from itertools import chain

from control.kit.slices import emptied, portions
from control.model.address import Address
from control.model.route import WaypointKey
from control.model.workload import Service, Workload
from control.server.compile.enclosures import Enclosures
from control.server.compile.endpoints import Endpoints, NewlyNamed, owner_of, places
from control.server.compile.holdings import Holdings
from control.server.compile.host_ports import host_port_note
from control.server.compile.localities import Localities
from control.server.compile.notebook import Notebook
from control.server.compile.remarks import remarks
from control.server.compile.residents import Move, Resident, Residents
from control.server.compile.rulebook import Rulebook
from control.server.compile.selectors import Selectors
from control.server.compile.services import compile_service, is_in_mesh, service_key
from control.server.compile.settings import Settings
from control.server.compile.table import ResourceTable
from control.server.compile.waypoint_labels import USE_LABEL
from control.server.compile.waypoints import Waypoints
from control.server.compile.workloads import Compiler, has_workload, workload_uid
from control.server.sources.objects import (
    EndpointSlice,
    Gateway,
    Key,
    Meta,
    NodeObject,
    ServiceObject,
)
from control.server.sources.services import NEAR


class Destinations:
    def __init__(
        self, settings: Settings, residents: Residents, rulebook: Rulebook, notebook: Notebook
    ) -> None:
        self.workloads: ResourceTable[Workload] = ResourceTable()
        self.services: ResourceTable[Service] = ResourceTable()
        self._settings = settings
        self._residents = residents
        self._rulebook = rulebook
        self._notebook = notebook
        self._holdings = Holdings()
        self._localities = Localities()
        self._endpoints = Endpoints(settings)
        self._found: dict[Key, ServiceObject] = {}
        self._names: dict[Key, str] = {}  # services on the wire
        self._selecting: Selectors[ServiceObject] = Selectors(residents.population)
        self._filed: dict[Key, ServiceObject] = {}  # those in `_selecting`
        self._places: dict[Address, list[str]] = {}
        self._host_ports: dict[Key, str] = {}  # pod → its service
        self._waypoints = Waypoints(settings)
        self._enclosures = Enclosures(settings, rulebook.policies)
        self._used: dict[str, WaypointKey] = {}  # by services on the wire
        self._compiler = Compiler(
            settings,
            rulebook,
            self._holdings,
            self._localities,
            self._endpoints,
            self._selecting,
            self._names,
            self._waypoints,
        )
        self._concerned: deque[Iterable[Key]] = deque()  # groups of pods that are stale
        self._stale_pods: dict[Key, None] = {}
        self._stale_services: dict[Key, None] = {}
        self._stale_addresses: dict[Address, None] = {}
        self._is_elsewhere = False  # every address that slices name alone is stale
        self._remarked: set[Key] = set()
        self._noted: set[Key] = set()  # for what their labels say of waypoints

    # News

    def concern(self, groups: Iterable[Iterable[Key]]) -> None:
        """Something else than addresses is new about these pods. `settle` walks them."""
        self._concerned.extend(groups)

    def moved(self, move: Move) -> None:
        self._stale_pods[move.key] = None
        self._remarked.add(move.key)
        if move.after is None:
            self._holdings.drop(move.key)
        else:
            self._holdings.put(move.after.pod, move.after.is_captured)

    def put_node(self, key: Key, value: NodeObject | None) -> None:
        self._remarked.add(key)
        if value is None:
            self._holdings.drop(key)
        else:
            self._holdings.put(value)
        if self._localities.put(key.name, value):
            self.concern([self._residents.on_node(key.name)])
            self._is_elsewhere = True

    def put_service(self, key: Key, value: ServiceObject | None) -> None:
        before = self._found.pop(key, None)
        self._names.pop(key, None)
        if value is None:
            self._holdings.drop(key)
        else:
            self._found[key] = value
            self._names[key] = service_key(key, self._settings)
            self._holdings.put(value)
        in_mesh = value if value is not None and is_in_mesh(value) else None
        self._waypoints.put_service(key, in_mesh)
        self._name(self._endpoints.put_service(key, in_mesh))
        self._file(key)
        self._stale_services[key] = None
        self._remarked.add(key)
        if _is_near(before) != _is_near(value):
            self._remarked.update(self._endpoints.slices_of(key))

    def put_gateway(self, key: Key, value: Gateway | None) -> None:
        owners = self._waypoints.put_gateway(key, value)
        if owners:
            labelled = {USE_LABEL: key.name}
            self.concern([self._residents.population.selected(labelled, "")])
        self._ask(owners)

    def put_namespace(self, key: Key, meta: Meta | None) -> None:
        self._ask(self._waypoints.put_namespace(key, meta))

    def _ask(self, owners: Collection[Key]) -> None:
        """Waypoints of these may be others than before."""
        for key in owners:
            self._noted.add(key)
            if key.kind == "Service":
                self._stale_services[key] = None
                continue
            self._stale_services.update(dict.fromkeys(self._waypoints.services_in(key.name)))
            self.concern([self._residents.population.of(key.name)])

    def put_slice(self, key: Key, value: EndpointSlice | None) -> None:
        before = self._endpoints.slice(key)
        owners = {owner_of(each) for each in (before, value) if each is not None}
        lacking = {each: self._endpoints.lacking(each) for each in owners}
        if value is None:
            self._holdings.drop(key)
        else:
            self._holdings.put(value)
        self._name(self._endpoints.put_slice(key, value))
        self._remarked.add(key)
        for owner, ports in lacking.items():
            if self._endpoints.lacking(owner) != ports:
                self._file(owner)
                self._stale_services[owner] = None

    def _name(self, named: NewlyNamed) -> None:
        if named.pods:
            self.concern([[Key("Pod", *each) for each in named.pods]])
        self._stale_addresses.update(dict.fromkeys(named.addresses))

    def _file(self, key: Key) -> None:
        """File a service by its selector, if that and no slice says who its pods are."""
        value = self._found.get(key)
        if value is not None and (
            not value.selector or not is_in_mesh(value) or self._endpoints.lacking(key) is not None
        ):
            value = None
        before = self._filed.pop(key, None)
        if value is not None:
            self._filed[key] = value
            self._selecting.put(key, value, key.namespace)
        elif before is not None:
            self._selecting.drop(key)
        if _parts(before) == _parts(value):
            return
        for each in (before, value):
            if each is not None:
                population = self._residents.population
                self.concern([population.selected(each.selector, key.namespace)])

    # Results

    def settle(self) -> Iterator[None]:
        """Make anew what is stale, step by step."""
        yield from self._walk()
        upset = yield from self._holdings.settle()
        for remarked in portions(upset.remarked):
            self._remarked.update(remarked)
            yield
        for owner in upset.moved:
            stale = self._stale_pods if owner.kind == "Pod" else self._stale_services
            if owner.kind in ("Pod", "Service"):
                stale[owner] = None
            yield
        for addresses in (self._stale_addresses, upset.addresses):
            for address in addresses:
                if (pod := self._holdings.pod_at(address)) is not None:
                    self._stale_pods[pod] = None
                yield
        for more in portions(upset.addresses):
            self._stale_addresses.update(dict.fromkeys(more))
            yield
        for done in (upset.remarked, upset.moved, upset.addresses):
            yield from emptied(done)
        yield from self._settle_each()

    def _walk(self) -> Iterator[None]:
        """Note who is concerned."""
        while self._concerned:
            for part in portions(self._concerned.popleft()):
                self._stale_pods.update(dict.fromkeys(part))
                yield
            yield
        if self._is_elsewhere:
            self._is_elsewhere = False
            for some in portions(self._endpoints.addresses()):
                self._stale_addresses.update(dict.fromkeys(some))
                yield

    def _settle_each(self) -> Iterator[None]:
        services, self._stale_services = self._stale_services, {}
        for key in services:
            self._show_service(key)
            yield
        noted, self._noted = self._noted, set()
        for key in chain(services, noted):
            self._notebook.put("waypoint", key, self._waypoints.notes(key))
            yield
        yield from self._walk()  # pods of services that have another waypoint now
        pods, self._stale_pods = self._stale_pods, {}
        self._compiler.forget()
        for key in pods:
            self._show_pod(key)
            yield
        self._compiler.forget()
        addresses, self._stale_addresses = self._stale_addresses, {}
        for address in addresses:
            self._show_places(address)
            yield
        for done in (services, pods, addresses):
            yield from emptied(done)

    @property
    def has_remarks(self) -> bool:
        """True if remarks are not up to date."""
        return bool(self._remarked)

    def remark(self) -> Iterator[None]:
        remarked, self._remarked = self._remarked, set()
        while remarked:
            self._remark(remarked.pop())
            yield

    def keys(self) -> Iterator[Key]:
        """Nodes, services, slices and waypoints that are there."""
        yield from (each for each in self._holdings.owners() if each.kind != "Pod")
        yield from self._waypoints.keys()

    def _show_service(self, key: Key) -> None:
        value, service = self._found.get(key), None
        used: WaypointKey | None = None
        if value is not None and is_in_mesh(value):
            lacking = self._endpoints.lacking(key) or ()
            used = self._waypoints.of_service(key)
            at = self._waypoints.address(used)
            service = compile_service(value, self._settings, self._holdings, lacking, at)
        name = service_key(key, self._settings)
        self.services.put(name, service)
        if self._used.get(name) != used:
            self._used.pop(name, None)
            if used is not None:
                self._used[name] = used
            self._concern_pods_of(key)

    def _concern_pods_of(self, service: Key) -> None:
        """Another waypoint is before them than before."""
        named = self._endpoints.named_by(service)
        at = map(self._holdings.pod_at, named.addresses)
        self.concern([[Key("Pod", *each) for each in named.pods], filter(None, at)])
        if (value := self._filed.get(service)) is not None:
            population = self._residents.population
            self.concern([population.selected(value.selector, service.namespace)])

    def _show_pod(self, key: Key) -> None:
        resident = self._residents.get(key)
        workload = of_host = None
        if resident is not None and has_workload(resident):
            workload = self._enclosed(resident, self._compiler.workload(resident))
            of_host = self._compiler.host_ports(resident)
        else:
            self._enclosures.put(key, ())
        uid = workload_uid(key, self._settings) if workload is None else workload.uid
        self.workloads.put(uid, workload)
        before = self._host_ports.pop(key, None)
        if of_host is not None:
            self._host_ports[key] = of_host.service.key
            self.services.put(of_host.service.key, of_host.service)
        elif before is not None:
            self.services.put(before, None)
        notes = []
        if resident is not None and resident.is_enrolled and resident.pod.host_ports:
            strict = self._rulebook.is_strict(key.namespace, resident.pod.meta.labels)
            notes += [host_port_note(resident.pod)] if strict else []
        self._notebook.put("host port", key, notes)

    def _enclosed(self, resident: Resident, workload: Workload) -> Workload:
        """The workload, with the policy that leaves it to its waypoints."""
        waypoints: set[WaypointKey] = set()
        if not resident.is_waypoint and not resident.pod.host_network:
            if self._used:
                waypoints = {self._used[each] for each in workload.services if each in self._used}
            # Services that no waypoint is before lead straight to their pods: those stay open.
            if workload.waypoint is not None and (waypoints or not workload.services):
                meta = resident.pod.meta
                own = self._waypoints.of_workload(meta.namespace, meta.labels)
                waypoints |= {own} if own is not None else set()
        name = self._enclosures.put(resident.pod.meta.key, waypoints)
        if not name:
            return workload
        names = tuple(sorted((*workload.authorization_policies, name)))
        return replace(workload, authorization_policies=names)

    def _show_places(self, address: Address) -> None:
        found = {
            each.uid: each
            for each in places(
                address, self._endpoints, self._holdings, self._localities, self._settings
            )
        }
        for uid in self._places.pop(address, ()):
            if uid not in found:
                self.workloads.put(uid, None)
        if found:
            self._places[address] = list(found)
        for uid, place in found.items():
            self.workloads.put(uid, place)

    def _remark(self, key: Key) -> None:
        value: ServiceObject | EndpointSlice | None = self._found.get(key)
        is_near = False
        if key.kind == "EndpointSlice":
            value = endpoint_slice = self._endpoints.slice(key)
            if endpoint_slice is not None:
                is_near = _is_near(self._found.get(owner_of(endpoint_slice)))
        self._notebook.put("remark", key, remarks(key, self._holdings, value, is_near))


def _is_near(service: ServiceObject | None) -> bool:
    return service is not None and service.traffic_distribution in NEAR


def _parts(service: ServiceObject | None) -> object:
    """All of a service that the workloads of its pods are made from."""
    return service and (service.selector, service.ports)
