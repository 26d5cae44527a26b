"""References across namespaces that ReferenceGrants allow. Pure."""

from __future__ import annotations

from control.server.sources.objects import Key, ReferenceGrant
from control.server.sources.route_specs import TargetRef


class Grants:
    def __init__(self) -> None:
        self._found: dict[str, dict[Key, ReferenceGrant]] = {}  # by namespace

    def put(self, key: Key, value: ReferenceGrant | None) -> None:
        found = self._found.setdefault(key.namespace, {})
        found.pop(key, None)
        if value is not None:
            found[key] = value
        elif not found:
            del self._found[key.namespace]

    def allow(self, source: Key, group: str, to: TargetRef) -> bool:
        """True if an object of this API group may name the other one."""
        if source.namespace == to.namespace:
            return True
        wanted = (group, source.kind, source.namespace)
        return any(
            any((each.group, each.kind, each.namespace) == wanted for each in grant.froms)
            and any(
                (each.group, each.kind) == (to.group, to.kind) and each.name in ("", to.name)
                for each in grant.tos
            )
            for grant in self._found.get(to.namespace, {}).values()
        )

    def keys(self) -> list[Key]:
        return [key for found in self._found.values() for key in found]
