"""The wheel: what is in it, and that it installs into a clean environment of each Python from 3.10 up."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path

import pytest

import check_wheel
from support import REPOSITORY
from test_runtimes import GROUPS
from third_party import Crate, crates_of_module, host
from wheel_environments import Environment, pythons, run, wheel

CARGO_LOCK = (REPOSITORY / "Cargo.lock").read_text(encoding="utf-8")
# On the Pythons of the runtimes, test_runtimes.py installs the wheel and runs all parts.
NUMBERS = sorted(pythons().keys() - {number for _, number in GROUPS}) or [max(pythons())]


def test_wheel_content() -> None:
    assert "-cp310-abi3-" in wheel().name
    names = zipfile.ZipFile(wheel()).namelist()
    for wanted in ("jobrota/py.typed", "jobrota/_native.pyi", "jobrota/_native.abi3.so"):
        assert wanted in names
    assert any(name.endswith("/LICENSE") for name in names)
    assert not any("tests/" in name or name.endswith(".pyc") for name in names)


def damaged(pattern: str, folder: Path) -> check_wheel.Wheel:
    """A copy of the wheel's lists, without the files whose names match, and with `other` for what matches in files."""
    changed = folder / wheel().name
    with zipfile.ZipFile(wheel()) as original, zipfile.ZipFile(changed, "w") as copy:
        for name in original.namelist():
            if ".dist-info/" in name and not re.search(pattern, name):
                text = original.read(name).decode("utf-8")
                copy.writestr(name, re.sub(pattern, "other", text, flags=re.MULTILINE))
    return check_wheel.Wheel(changed)


def test_each_crate_has_a_licence_and_is_in_the_sbom() -> None:
    assert len(crates_of_module(host())) > 200
    assert check_wheel.contents(check_wheel.Wheel(wheel()), host()) == []


def test_the_sbom_has_no_crate_that_cargo_does_not_resolve() -> None:
    resolved = set(re.findall(r'^name = "(.+)"\nversion = "(.+)"', CARGO_LOCK, re.MULTILINE))
    sbom = check_wheel.Wheel(wheel()).text(r"sboms/jobrota\.cyclonedx\.json")
    assert check_wheel.described(sbom) <= {Crate(name, version) for name, version in resolved}


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (r"^tokio (?=[\d.]+: MIT)", "tokio {tokio} has no licence text"),
        (r"crates\.txt$", "tokio {tokio} has no licence text"),
        (r"\.cyclonedx\.json$", "tokio {tokio} has no component in the SBOM"),
        (r'(?<="name": ")tokio(?=")', "tokio {tokio} has no component in the SBOM"),
        (r"licenses/LICENSE$", "the licence of jobrota, licenses/LICENSE, is missing"),
        (r"(?<=^License-File: third-party/).*", "METADATA does not list licenses/third-party/crates.txt"),
    ],
)
def test_the_check_names_what_is_missing(pattern: str, problem: str, tmp_path: Path) -> None:
    tokio = next(crate.version for crate in crates_of_module(host()) if crate.name == "tokio")
    found = check_wheel.contents(damaged(pattern, tmp_path), host())
    assert any(line.startswith(problem.format(tokio=tokio)) for line in found), found


def release(folder: Path, tag: str, needs: str, monkeypatch: pytest.MonkeyPatch) -> check_wheel.Wheel:
    """A wheel with the texts of the toolchain, for which auditwheel says what it needs."""
    audit = {"overall_tag": needs, "versioned_symbols": {}, "external_libs": {}}
    monkeypatch.setattr(check_wheel, "output", lambda *command: json.dumps(audit))
    path = folder / f"jobrota-0.1.0-cp310-abi3-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name in check_wheel.TOOLCHAIN_TEXTS:
            archive.writestr(f"jobrota-0.1.0.dist-info/licenses/third-party/{name}", "text")
    return check_wheel.Wheel(path)


def test_a_release_runs_with_glibc_2_28(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, tag = "aarch64-unknown-linux-gnu", "manylinux_2_28_aarch64"
    assert check_wheel.published(release(tmp_path, tag, tag, monkeypatch), target) == []
    name, symbols = check_wheel.published(
        release(tmp_path, "linux_aarch64", "manylinux_2_34_aarch64", monkeypatch), target
    )
    assert name == f"its name does not end with cp310-abi3-{tag}.whl"
    assert symbols.startswith("it needs manylinux_2_34_aarch64")


def test_a_release_is_small_and_has_the_texts_of_the_toolchain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tag = "manylinux_2_28_x86_64"
    monkeypatch.setattr(check_wheel, "MAXIMUM_BYTES", 10)
    monkeypatch.setattr(check_wheel, "TOOLCHAIN_TEXTS", (*check_wheel.TOOLCHAIN_TEXTS, "other.txt"))
    changed = release(tmp_path, tag, tag, monkeypatch)
    changed.names.remove("jobrota-0.1.0.dist-info/licenses/third-party/other.txt")
    size, text = check_wheel.published(changed, "x86_64-unknown-linux-gnu")
    assert size.endswith("bytes, and may have 10")
    assert text == "licenses/third-party/other.txt is missing"


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
