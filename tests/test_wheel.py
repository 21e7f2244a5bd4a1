"""One wheel installs into a clean environment of every Python from 3.10 up, and the quick start runs there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest

from support import REPOSITORY


def version(executable: str) -> tuple[int, int] | None:
    """Major and minor version, or None for what is no usable CPython (such as a shim for one that is switched off)."""
    code = "import sys, ensurepip; print(sys.implementation.name, *sys.version_info[:2])"
    try:
        done = subprocess.run([executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    except OSError:
        return None
    found = re.fullmatch(r"cpython (\d+) (\d+)\s*", done.stdout)
    return (int(found[1]), int(found[2])) if found else None


@cache
def pythons() -> dict[str, str]:
    """One interpreter for each version from 3.10 up, on the PATH or under pyenv."""
    candidates = [sys.executable]
    candidates += [path for minor in range(10, 30) if (path := shutil.which(f"python3.{minor}"))]
    pyenv = Path(os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv")))
    candidates += [str(path) for path in sorted(pyenv.glob("versions/3.*/bin/python3"))]
    found: dict[str, str] = {}
    for candidate in candidates:
        number = version(candidate)
        if number and number >= (3, 10):
            found.setdefault(f"{number[0]}.{number[1]}", candidate)
    return found


@cache
def wheel() -> Path:
    wheels = list((REPOSITORY / ".venv" / "wheel").glob("jobrota-*.whl"))
    assert len(wheels) == 1, "make build puts exactly one wheel into .venv/wheel/"
    return wheels[0]


def test_wheel_content() -> None:
    assert "-cp310-abi3-" in wheel().name
    names = zipfile.ZipFile(wheel()).namelist()
    for wanted in ("jobrota/py.typed", "jobrota/_native.pyi", "jobrota/_native.abi3.so"):
        assert wanted in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any("tests/" in name or name.endswith(".pyc") for name in names)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", pythons())
def test_the_quick_start_runs_in_a_clean_environment(number: str, tmp_path: Path) -> None:
    def run(*command: str | Path) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    run(pythons()[number], "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert snippet is not None
    (tmp_path / "quickstart.py").write_text(snippet[1], encoding="utf-8")
    assert "seconds saved" in run(python, "-W", "error", tmp_path / "quickstart.py")
    assert run(tmp_path / "venv" / "bin" / "jobrota", "--version").startswith("jobrota ")
