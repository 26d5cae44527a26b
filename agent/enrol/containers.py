"""Ids of containers that were deleted, so that a registration of one that comes late is refused."""

from __future__ import annotations

# A node makes and deletes some hundreds of pods at once; 200 bytes each.
DELETED_MAX = 4096


class DeletedContainers:
    """The last ones."""

    def __init__(self, limit: int = DELETED_MAX) -> None:
        self._limit = limit
        self._ids: dict[str, None] = {}  # the oldest first

    def add(self, container_id: str) -> None:
        """An empty id is nobody's."""
        if not container_id:
            return
        self._ids.pop(container_id, None)
        self._ids[container_id] = None
        if len(self._ids) > self._limit:
            del self._ids[next(iter(self._ids))]

    def discard(self, container_id: str) -> None:
        """It runs again: Docker keeps the id of a container that is started once more."""
        self._ids.pop(container_id, None)

    def __contains__(self, container_id: str) -> bool:
        return container_id in self._ids
