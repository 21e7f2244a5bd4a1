"""The wheel installs on every Databricks runtime without a change to what is preinstalled, and works there.

`tests/runtimes/` names what each runtime has preinstalled, and where that is known from. Runtimes that have the same
packages share one environment.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from support import REPOSITORY
from wheel_environments import Environment, normalized, pythons, run, wheel

FOLDER = REPOSITORY / "tests" / "runtimes"
NAMES = ("dbr-14.3", "dbr-15.4", "dbr-16.4", "dbr-17.3", "dbr-18", "dbr-19", "serverless-4", "serverless-5")

# Installing these takes most of the time, and jobrota does not depend on them. So only two runtimes have them here, one
# whose pyarrow and pandas have no PyCapsules and one whose have. The tests with Spark have the newest.
LARGE = {"numpy", "pandas", "python-dateutil", "pytz", "pyarrow", "six", "tzdata"}
WITH_LARGE = ("dbr-14.3", "dbr-17.3", "serverless-4")


# With FORCE_COLOR, rich takes the pipe for a terminal.
BARS = """
import os
os.environ["FORCE_COLOR"] = "1"
from jobrota.progress import RichProgress, make_progress
with make_progress() as progress:
    assert isinstance(progress, RichProgress)
    progress({"arm": "async", "total": 2, "done": 1, "failed": 0, "in_flight": 1})
"""


@dataclass(frozen=True)
class Runtime:
    """What a file of `tests/runtimes/` says."""

    name: str
    python: tuple[int, int]
    pins: tuple[str, ...]
    """The packages of the first section, which jobrota itself meets. The second is of the extras."""

    @property
    def file(self) -> Path:
        return FOLDER / f"{self.name}.txt"

    @property
    def installed(self) -> tuple[str, ...]:
        """The pins that the test installs."""
        large = self.name in WITH_LARGE and self.python in pythons()
        return tuple(pin for pin in self.pins if large or pin.partition("==")[0] not in LARGE)


def read(name: str) -> Runtime:
    text = (FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    number = re.search(r"^# Python (\d+)\.(\d+)$", text, re.MULTILINE)
    assert number is not None
    pins = re.findall(r"^\S+==\S+$", text.partition("\n# The extras\n")[0], re.MULTILINE)
    return Runtime(name, (int(number[1]), int(number[2])), tuple(pins))


def interpreter(wanted: tuple[int, int]) -> tuple[int, int]:
    """The version itself, else the next newer one of the machine, else the newest."""
    return min((number for number in pythons() if number >= wanted), default=max(pythons()))


def groups() -> Iterator[tuple[list[Runtime], tuple[int, int]]]:
    """The runtimes with equal packages, and the Python for them."""
    found: dict[tuple[tuple[int, int], tuple[str, ...]], list[Runtime]] = {}
    for runtime in map(read, NAMES):
        found.setdefault((runtime.python, runtime.installed), []).append(runtime)
    for (wanted, _), runtimes in found.items():
        yield runtimes, interpreter(wanted)


GROUPS = list(groups())


def title(runtimes: list[Runtime], number: tuple[int, int]) -> str:
    """The names of the runtimes, and the Python if it is another one than theirs."""
    names = "+".join(runtime.name for runtime in runtimes)
    return names if number == runtimes[0].python else f"{names}-on-python{number[0]}.{number[1]}"


def requirements() -> list[Requirement]:
    """What the wheel and its extras need."""
    with zipfile.ZipFile(wheel()) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode()
    return [Requirement(line) for line in re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)]


def test_every_file_is_a_runtime() -> None:
    assert sorted(path.stem for path in FOLDER.glob("*.txt")) == sorted(NAMES)


@pytest.mark.parametrize("runtime", [read(name) for name in NAMES], ids=NAMES)
def test_no_bound_excludes_what_a_runtime_has(runtime: Runtime) -> None:
    lines = re.findall(r"^(\S+)==(\S+)$", runtime.file.read_text(encoding="utf-8"), re.MULTILINE)
    preinstalled = {normalized(name): version for name, version in lines}
    needed = requirements()
    assert {"arro3-core", "rich", "altair", "ipykernel"} <= {normalized(requirement.name) for requirement in needed}
    excluded = [
        str(requirement)
        for requirement in needed
        if (version := preinstalled.get(normalized(requirement.name))) and version not in requirement.specifier
    ]
    assert excluded == []


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("runtimes", "number"), GROUPS, ids=[title(*group) for group in GROUPS])
def test_nothing_preinstalled_changes_and_all_parts_work(
    runtimes: list[Runtime], number: tuple[int, int], tmp_path: Path
) -> None:
    environment = Environment(tmp_path / "venv", pythons()[number])
    environment.install("--no-deps", *runtimes[0].installed)
    before = environment.packages()

    # As `%pip install` in a notebook does: nothing tells pip to keep what is there.
    environment.install(wheel())
    after = environment.packages()
    assert {name: version for name, version in after.items() if name in before} == before
    assert after.keys() - before.keys() <= {"jobrota", "arro3-core"}

    printed = run(environment.python, "-W", "error", FOLDER / "four_parts.py", tmp_path, cwd=tmp_path)
    assert "async: 2/2 jobs after " in printed
    assert re.search(r"^job_notifications +[13] +0 +[13] ", printed, re.MULTILINE)

    # With the extras, pip would take the newest of their packages, and what these need. Constraints keep what is there.
    # On another Python than the runtime's, pip still looks for the wheels of the runtime's.
    major, minor = runtimes[0].python
    foreign = ("--python-version", f"{major}.{minor}", "--target", tmp_path / "target")
    options = () if number == runtimes[0].python else foreign
    extras = f"{wheel()}[notebook,progress,report]"
    planned = environment.planned(*options, "--constraint", runtimes[0].file, extras)
    assert options or not planned & before.keys()
    if "rich" not in before:
        environment.install("--constraint", runtimes[0].file, f"{wheel()}[progress]")
    run(environment.python, "-W", "error", "-c", BARS)
