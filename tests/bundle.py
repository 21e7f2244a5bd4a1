"""The bundle in deploy/, as the Databricks CLI sees it: with its includes, one target and the values of variables.

It needs no workspace and no CLI. Databricks' models check the resources, which are most of the bundle. This file checks
the rest: the keys of the other sections, the variables and the files that are named. What is wrong is a `BundleError`.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from databricks.bundles.alerts import Alert
from databricks.bundles.dashboards import Dashboard
from databricks.bundles.jobs import Job
from databricks.bundles.volumes import Volume

from support import REPOSITORY

FOLDER = REPOSITORY / "deploy"
MODELS: dict[str, Any] = {"alerts": Alert, "dashboards": Dashboard, "jobs": Job, "volumes": Volume}

# The keys of a bundle's file outside of its resources, of those that are used: more can be added when they are needed.
ROOT = {"artifacts", "bundle", "include", "resources", "targets", "variables"}
SECTIONS = {
    "bundle": {"name"},
    "artifacts": {"build", "files", "path", "type"},
    "variables": {"default", "description", "lookup", "type"},
    "targets": {"default", "mode", "resources", "variables", "workspace"},
    "workspace": {"root_path"},
}
MODES = {"development", "production"}
# What a list in a target is merged by. Other lists are appended.
MERGED_BY = {"tasks": "task_key", "job_clusters": "job_cluster_key", "environments": "environment_key"}
REFERENCE = re.compile(r"\$\{([^}]*)\}")
BUILT_IN = {"bundle.name", "bundle.target", "workspace.current_user.short_name", "workspace.file_path"}


class BundleError(Exception):
    """The bundle would not be deployed, or not as it is meant."""


class Bundle:
    """The files of a bundle."""

    def __init__(self, folder: Path = FOLDER) -> None:
        """Reads the files, and checks all that does not depend on a target."""
        self.folder = folder
        self.root = _read(folder / "databricks.yml")
        self.resources: dict[str, dict[str, Any]] = {}
        for pattern in self.root.get("include", []):
            found = sorted(folder.glob(pattern))
            if not found:
                raise BundleError(f"include: nothing matches {pattern}")
            for path in found:
                included = _read(path)
                _check_keys(included, {"resources"}, path.name)
                for kind, resources in included["resources"].items():
                    known = self.resources.setdefault(kind, {})
                    if twice := known.keys() & resources.keys():
                        raise BundleError(f"{path.name}: {twice} is there twice")
                    known.update(resources)
        self._check()

    def _check(self) -> None:
        _check_keys(self.root, ROOT, "databricks.yml")
        _check_keys(self.root["bundle"], SECTIONS["bundle"], "bundle")
        for section in ("artifacts", "variables", "targets"):
            for name, values in self.root[section].items():
                _check_keys(values, SECTIONS[section], f"{section}.{name}")
        for name, variable in self.root["variables"].items():
            complex_value = isinstance(variable.get("default"), (list, dict))
            if complex_value != (variable.get("type") == "complex") or not variable.get("description"):
                raise BundleError(f"variables.{name}: needs a description, and type: complex for a list or a mapping")
        for name, target in self.root["targets"].items():
            _check_keys(target.get("workspace", {}), SECTIONS["workspace"], f"targets.{name}.workspace")
            if unknown := target.get("variables", {}).keys() - self.root["variables"].keys():
                raise BundleError(f"targets.{name}: there are no variables {unknown}")
            if target["mode"] not in MODES:
                raise BundleError(f"targets.{name}: there is no mode {target['mode']}")
        if [target.get("default", False) for target in self.root["targets"].values()].count(True) != 1:
            raise BundleError("targets: exactly one is the default")
        used = {name.removeprefix("var.") for name in _references([self.root, self.resources]) if name[:4] == "var."}
        declared = self.root["variables"].keys()
        if used != declared:
            raise BundleError(f"variables: not declared {used - declared}, not used {declared - used}")
        if unknown := {name for name in _references([self.root, self.resources]) if name[:4] != "var."} - BUILT_IN:
            raise BundleError(f"not known: {unknown}")

    def merged(self, target: str) -> dict[str, dict[str, Any]]:
        """The resources of a target, with references as they are written. Databricks' models have accepted them."""
        merged: dict[str, dict[str, Any]] = _merge(self.resources, self.root["targets"][target].get("resources", {}))
        for kind, resources in merged.items():
            if kind not in MODELS:
                raise BundleError(f"resources: there is no model of {kind}")
            for name, values in resources.items():
                _check_model(kind, name, values)
                self._check_files(f"{kind}.{name}", values)
        for name, job in merged["jobs"].items():
            _check_compute(name, job)
        return merged

    def _check_files(self, name: str, resource: Mapping[str, Any]) -> None:
        path = resource.get("file_path")
        # A path is relative to the file that names it.
        if path and not (self.folder / "resources" / path).is_file():
            raise BundleError(f"{name}: there is no file {path}")

    def resolved(self, target: str, variables: Mapping[str, Any], file_path: str = "/w") -> dict[str, dict[str, Any]]:
        """The resources of a target with the values of its variables, which the models have accepted again."""
        values = {name: variable.get("default") for name, variable in self.root["variables"].items()}
        if unknown := variables.keys() - values.keys():
            raise BundleError(f"variables: there are none of the names {unknown}")
        values |= self.root["targets"][target].get("variables", {}) | variables
        known = {f"var.{name}": value for name, value in values.items() if value is not None}
        known |= {"bundle.name": self.root["bundle"]["name"], "bundle.target": target, "workspace.file_path": file_path}
        known["workspace.current_user.short_name"] = "ada"
        resolved: dict[str, dict[str, Any]] = _substitute(self.merged(target), known)
        for kind, resources in resolved.items():
            for name, resource in resources.items():
                _check_model(kind, name, resource)
        return resolved


def parameters(job: Mapping[str, Any]) -> list[str]:
    """The parameters of the only task of a job."""
    (task,) = job["tasks"]
    values: list[str] = task["python_wheel_task"]["parameters"]
    return values


def _read(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return loaded


def _check_keys(values: Mapping[str, Any], known: set[str], where: str) -> None:
    if unknown := values.keys() - known:
        raise BundleError(f"{where}: unknown keys {unknown}")


def _check_model(kind: str, name: str, values: Mapping[str, Any]) -> None:
    try:
        MODELS[kind].from_dict(copy.deepcopy(values))
    except (TypeError, ValueError) as error:
        raise BundleError(f"{kind}.{name}: {error}") from error


def _check_compute(name: str, job: Mapping[str, Any]) -> None:
    """Each task runs on one kind of compute, which the job defines, and finds the wheel there."""
    environments = {each["environment_key"] for each in job.get("environments", [])}
    clusters = {each["job_cluster_key"] for each in job.get("job_clusters", [])}
    for task in job["tasks"]:
        serverless, cluster = task.get("environment_key"), task.get("job_cluster_key")
        if (serverless is None) == (cluster is None):
            raise BundleError(f"jobs.{name}: {task['task_key']} needs an environment or a cluster")
        if serverless is not None and serverless not in environments:
            raise BundleError(f"jobs.{name}: there is no environment {serverless}")
        if cluster is not None and (cluster not in clusters or not task.get("libraries")):
            raise BundleError(f"jobs.{name}: there is no cluster {cluster} with the wheel")


def _merge(below: Any, above: Any, key: str = "") -> Any:
    if isinstance(below, dict) and isinstance(above, dict):
        return below | {
            name: _merge(below[name], value, name) if name in below else value for name, value in above.items()
        }
    if isinstance(below, list) and isinstance(above, list):
        by = MERGED_BY.get(key)
        if by is None:
            return below + above
        merged = {each[by]: each for each in below}
        for each in above:
            merged[each[by]] = _merge(merged.get(each[by], {}), each)
        return list(merged.values())
    return above


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _texts(each)


def _references(value: Any) -> set[str]:
    return {name for text in _texts(value) for name in REFERENCE.findall(text)}


def _substitute(value: Any, known: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {name: _substitute(each, known) for name, each in value.items()}
    if isinstance(value, list):
        return [_substitute(each, known) for each in value]
    if not isinstance(value, str):
        return value
    if missing := set(REFERENCE.findall(value)) - known.keys():
        raise BundleError(f"variables: no value is given for {missing}")
    if whole := REFERENCE.fullmatch(value):  # keeps numbers and lists
        return _substitute(known[whole[1]], known)
    return REFERENCE.sub(lambda found: str(_substitute(known[found[1]], known)), value)
