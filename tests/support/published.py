"""A mesh that was published from manifests, without a source."""

from __future__ import annotations

from pathlib import Path

from control.server.compile.settings import Settings
from control.server.metrics import Metrics
from control.server.sources.captured import CapturedSet
from control.server.sources.folder import Folder
from control.server.xds.publish import Publisher
from tests.support.clock import FakeClock


class PublishedMesh:
    """`publish` replaces everything with these manifests, one file each."""

    def __init__(self, folder: Path) -> None:
        self.captured = CapturedSet(folder / "captured", is_new=True)
        self.clock = FakeClock()
        self.publisher = Publisher(Settings(), self.captured, Metrics(), self.clock)
        self._folder = Folder()

    def publish(self, *manifests: str) -> None:
        for number in range(20):
            self._folder.forget(f"{number}.yaml")
        for number, text in enumerate(manifests):
            self._folder.load(f"{number}.yaml", text.encode())
        self.publisher.offer(self._folder.snapshot())
        self.publisher.publish()
