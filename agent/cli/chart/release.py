"""The chart of the installation, rendered to objects without Helm: the same templates, one source.

A test compares the objects with Helm's.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import agent
from agent.cli.chart.errors import ChartError
from agent.cli.chart.functions import documents, from_yaml
from agent.cli.chart.run import Runner
from agent.cli.chart.tree import parse

FOLDER = Path(agent.__file__).parents[1] / "daemonset/chart"
NAMESPACE = "tulle-system"
SERVICE = "tulle"  # `app.kubernetes.io/managed-by` of what this command installs

Object = dict[str, Any]
Lookup = Callable[[str, str, str, str], Object]  # apiVersion, kind, namespace, name


def nothing_there(_api: str, _kind: str, _namespace: str, _name: str) -> Object:
    """The answer of no cluster."""
    return {}


@dataclass(frozen=True, slots=True)
class Chart:
    """All files by their path in the chart."""

    files: dict[str, str]

    @property
    def about(self) -> Object:
        found = from_yaml(self.files["Chart.yaml"])
        return found if isinstance(found, dict) else {}

    @property
    def version(self) -> str:
        return str(self.about.get("appVersion", ""))

    def names(self, folder: str) -> list[str]:
        """Names of the files that are in a folder, without ending."""
        return sorted(Path(path).stem for path in self.files if path.startswith(f"{folder}/"))

    def objects(
        self,
        settings: Object,
        lookup: Lookup = nothing_there,
        namespace: str = NAMESPACE,
        service: str = SERVICE,
    ) -> list[Object]:
        """The objects of these settings, each with its place. Raises ChartError."""
        about = self.about
        dot = {
            "Values": settings,
            "Chart": {"Name": about.get("name"), "AppVersion": self.version},
            "Release": {"Name": "tulle", "Namespace": namespace, "Service": service},
            "Files": {"Get": self._file, "Glob": self._matching},
            "Template": {"BasePath": "tulle/templates"},
        }
        paths = sorted(path for path in self.files if path.startswith("templates/"))
        templates = [parse(self.files[path], path) for path in paths]
        runner = Runner(templates, {"lookup": lookup})
        found: list[Object] = []
        for template in templates:
            if template.where.endswith(".yaml"):
                found += _objects(runner.render(template, dot), template.where)
        return [each for each in found if not _is_hook(each)]

    def _file(self, path: str) -> str:
        return self.files.get(path, "")

    def _matching(self, pattern: str) -> Object:
        return {path: text for path, text in self.files.items() if fnmatch.fnmatch(path, pattern)}


def _is_hook(value: Object) -> bool:
    """An object that Helm alone makes, at one moment of a release's life."""
    return "helm.sh/hook" in (value.get("metadata", {}).get("annotations") or {})


def load(folder: Path = FOLDER) -> Chart:
    """The chart that came with this installation. Raises ChartError."""
    try:
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        files = {str(path.relative_to(folder)): path.read_text() for path in paths}
    except (OSError, UnicodeDecodeError) as exc:
        raise ChartError(f"the chart below {folder} cannot be read: {exc}") from exc
    if "Chart.yaml" not in files or "values.yaml" not in files:
        raise ChartError(f"no chart in {folder}: this installation of Tulle is not whole")
    return Chart(files)


def _objects(text: str, where: str) -> list[Object]:
    try:
        found = documents(text)
    except ValueError as exc:
        raise ChartError(f"{where}: what it renders is {exc}") from exc
    for each in found:
        if not isinstance(each, dict) or not each.get("kind"):
            raise ChartError(f"{where}: what it renders is no object")
    return found
