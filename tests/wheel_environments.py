"""Environments into which tests install the wheel: the interpreters of the machine, and one pip for all of them."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

from support import REPOSITORY


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """What the command prints. It must succeed, and does not see the variables of this Python."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _version(executable: str) -> tuple[int, int] | None:
    """Major and minor version, or None for what is no usable CPython (such as a shim for one that is switched off)."""
    code = "import sys, venv; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        done = subprocess.run([executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    found = re.fullmatch(r"cpython (\d+) (\d+)\s*", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


@cache
def pythons() -> dict[tuple[int, int], str]:
    """One interpreter for each version from 3.10 up, on the PATH or under pyenv."""
    candidates = [sys.executable]
    candidates += [path for minor in range(10, 30) if (path := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")))
    candidates += [str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python3"))]
    found: dict[tuple[int, int], str] = {}
    for candidate in candidates:
        number = _version(candidate)
        if number and number >= (3, 10):
            found.setdefault(number, candidate)
    return found


@cache
def wheel() -> Path:
    """The wheel under test."""
    wheels = list((REPOSITORY / ".venv" / "wheel").glob("jobrota-*.whl"))
    assert len(wheels) == 1, "make build puts exactly one wheel into .venv/wheel/"
    return wheels[0]


class Environment:
    """A virtual environment without a pip of its own, because installing pip takes longer than installing the wheel."""

    def __init__(self, folder: Path, executable: str) -> None:
        """Makes it below the folder."""
        run(executable, "-m", "venv", "--without-pip", folder)
        self.programs = folder / "bin"
        self.python = self.programs / "python"

    def pip(self, *arguments: str | Path) -> str:
        """Runs the pip of the tests on this environment."""
        pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", self.python)
        return run(*pip, *arguments)

    def install(self, *arguments: str | Path) -> None:
        """Installs from wheels only."""
        self.pip("install", "--quiet", "--no-compile", "--only-binary", ":all:", *arguments)

    def planned(self, *arguments: str | Path) -> set[str]:
        """The packages that the same installation would add or replace."""
        report = self.pip("install", "--quiet", "--only-binary", ":all:", "--dry-run", "--report", "-", *arguments)
        return {normalized(item["metadata"]["name"]) for item in json.loads(report)["install"]}

    def packages(self) -> dict[str, str]:
        """The version of each installed package."""
        code = (
            "import json, importlib.metadata as m; print(json.dumps([(d.name, d.version) for d in m.distributions()]))"
        )
        return {normalized(name): version for name, version in json.loads(run(self.python, "-c", code))}


def normalized(name: str) -> str:
    """The form of a package's name in which names are compared."""
    return re.sub(r"[-_.]+", "-", name).lower()
