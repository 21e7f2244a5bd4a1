"""One wheel installs into a clean environment of every Python from 3.10 up, and the quick start runs there."""

from __future__ import annotations

import re
import zipfile
from pathlib import Path

import pytest

from support import REPOSITORY
from test_runtimes import GROUPS
from wheel_environments import Environment, pythons, run, wheel

# On the Pythons of the runtimes, test_runtimes.py installs the wheel and runs all parts.
NUMBERS = sorted(pythons().keys() - {number for _, number in GROUPS}) or [max(pythons())]


def test_wheel_content() -> None:
    assert "-cp310-abi3-" in wheel().name
    names = zipfile.ZipFile(wheel()).namelist()
    for wanted in ("jobrota/py.typed", "jobrota/_native.pyi", "jobrota/_native.abi3.so"):
        assert wanted in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any("tests/" in name or name.endswith(".pyc") for name in names)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("number", NUMBERS, ids="python{0[0]}.{0[1]}".format)
def test_the_quick_start_runs_in_a_clean_environment(number: tuple[int, int], tmp_path: Path) -> None:
    environment = Environment(tmp_path / "venv", pythons()[number])
    environment.install(wheel())
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    snippet = re.search(r"```python\n(.*?)```", readme, re.DOTALL)
    assert snippet is not None
    (tmp_path / "quickstart.py").write_text(snippet[1], encoding="utf-8")
    assert "seconds saved" in run(environment.python, "-W", "error", tmp_path / "quickstart.py", cwd=tmp_path)
    assert run(environment.programs / "jobrota", "--version").startswith("jobrota ")
