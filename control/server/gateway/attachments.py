"""Routes, made into rules, and the services that they are attached to. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from control.model.workload import Service
from control.server.compile.settings import Settings
from control.server.gateway.fronts import AttachedRoute
from control.server.gateway.grants import Grants
from control.server.gateway.names import service_name
from control.server.gateway.parents import attached_ports, is_service
from control.server.gateway.references import References
from control.server.gateway.rules import RouteRules, rules_of
from control.server.gateway.statuses import RouteStatus, RouteVerdict
from control.server.sources.objects import Key, ReferenceGrant, RouteObject, ServiceObject
from control.server.sources.route_specs import ParentRef


@dataclass(frozen=True, slots=True)
class _Parent:
    ref: ParentRef
    service: str  # its name on the wire
    ports: frozenset[int]
    verdict: RouteVerdict


@dataclass(frozen=True, slots=True)
class _Made:
    route: RouteObject
    rules: RouteRules
    parents: tuple[_Parent, ...]


class Attachments:
    """`services` and `sources` are others', by names on the wire. `is_behind`: True if a waypoint
    stands before a service."""

    def __init__(
        self,
        settings: Settings,
        services: Mapping[str, Service],
        sources: Mapping[str, ServiceObject],
        is_behind: Callable[[Service], bool],
    ) -> None:
        self.statuses: dict[Key, tuple[RouteStatus, ...]] = {}
        self._settings = settings
        self._services = services
        self._sources = sources
        self._is_behind = is_behind
        self._grants = Grants()
        self._references = References(settings, services, self._grants)
        self._found: dict[Key, RouteObject] = {}
        self._made: dict[Key, _Made] = {}
        self._naming: dict[str, set[Key]] = {}  # services → routes that name them in any way
        self._into: dict[str, set[Key]] = {}  # namespaces → routes of others that name services
        self._stale: dict[Key, None] = {}

    # News

    def put_route(self, key: Key, value: RouteObject | None) -> None:
        before = self._found.pop(key, None)
        if value is not None:
            self._found[key] = value
        self._index(self._naming, key, *(self._names(each) for each in (before, value)))
        self._index(self._into, key, *map(_foreign_spaces, (before, value)))
        self._stale[key] = None

    def put_grant(self, key: Key, value: ReferenceGrant | None) -> None:
        self._grants.put(key, value)
        self._stale.update(dict.fromkeys(self._into.get(key.namespace, ())))

    def concern(self, service: str) -> None:
        """Something is new about a service: routes may attach to it, or find it, in another way."""
        self._stale.update(dict.fromkeys(self._naming.get(service, ())))

    def _index(
        self, index: dict[str, set[Key]], key: Key, before: set[str], after: set[str]
    ) -> None:
        for name in before - after:
            index[name].discard(key)
            if not index[name]:
                del index[name]
        for name in after - before:
            index.setdefault(name, set()).add(key)

    def _names(self, route: RouteObject | None) -> set[str]:
        if route is None:
            return set()
        refs = [each.ref for each in route.spec.parents]
        for rule in route.spec.rules:
            refs += (each.ref for each in rule.backends)
            refs += (each.backend.ref for each in rule.filters.mirrors)
        return {
            service_name(each.namespace, each.name, self._settings)
            for each in refs
            if is_service(each)
        }

    # Results

    def settle(self, concerned: set[str], judged: set[Key]) -> Iterator[None]:
        """Make anew what is stale, in steps. `concerned` gets the services with other rules than
        before, `judged` the routes whose status has to be shown."""
        stale, self._stale = self._stale, {}
        for key in stale:
            before, route = self._made.pop(key, None), self._found.get(key)
            after = None
            if route is not None:
                after = self._made[key] = self._make(route)
            judged.add(key)
            if before != after:
                for made in (before, after):
                    concerned.update(() if made is None else _services_of(made))
            yield

    def _make(self, route: RouteObject) -> _Made:
        parents = []
        for ref in route.spec.parents:
            if is_service(ref.ref):
                name = service_name(ref.ref.namespace, ref.ref.name, self._settings)
                service, source = self._services.get(name), self._sources.get(name)
                is_behind = service is not None and self._is_behind(service)
                ports, verdict = attached_ports(route, ref, service, source, is_behind)
                numbers = frozenset(each.service_port for each in ports)
                parents.append(_Parent(ref, name, numbers, verdict))
        return _Made(route, rules_of(route, self._references), tuple(parents))

    def at(self, service: str) -> Iterator[AttachedRoute]:
        """Routes that are attached to a service."""
        for key in self._naming.get(service, ()):
            made = self._made[key]
            several = [each.ports for each in made.parents if each.service == service]
            if ports := frozenset[int]().union(*several):
                yield AttachedRoute(made.route, made.rules, ports)

    def naming(self, service: str) -> Iterable[Key]:
        return self._naming.get(service, ())

    def judge(self, key: Key, left_out: Callable[[str], Mapping[Key, RouteVerdict]]) -> None:
        """Show what became of a route. `left_out`: routes that did not come in at a service."""
        made = self._made.get(key)
        self.statuses.pop(key, None)
        if made is None or not made.parents:
            return
        meta = made.route.meta
        self.statuses[key] = tuple(
            RouteStatus(
                route=key,
                parent=each.ref,
                accepted=left_out(each.service).get(key, each.verdict),
                resolved=made.rules.resolved,
                generation=meta.generation,
                uid=meta.uid,
                file=meta.file,
                line=meta.line,
                rules=len(made.rules.rules) if each.ports else 0,
            )
            for each in made.parents
        )

    def keys(self) -> Iterator[Key]:
        """Objects that it was given."""
        yield from self._found
        yield from self._grants.keys()


def _foreign_spaces(route: RouteObject | None) -> set[str]:
    if route is None:
        return set()
    spaces: set[str] = set()
    for rule in route.spec.rules:
        spaces.update(each.ref.namespace for each in rule.backends)
        spaces.update(each.backend.ref.namespace for each in rule.filters.mirrors)
    return spaces - {route.meta.namespace}


def _services_of(made: _Made) -> set[str]:
    return {each.service for each in made.parents if each.ports}
