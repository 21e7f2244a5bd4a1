"""A release: the version is in one place, and a tag is released only with what belongs to it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

import jobrota
from release_notes import notes, version
from support import REPOSITORY
from wheel_environments import wheel

CARGO = (REPOSITORY / "Cargo.toml").read_text(encoding="utf-8")
RELEASED = """\
# Changelog

## 1.3.0 (unreleased)

- Later.

## 1.2.0 (2027-01-31)

- Rows are rows.

## 1.1.0 (2027-01-01)

- Earlier.
"""


def cargo(number: str) -> str:
    return f'[package]\nname = "jobrota"\nversion = "{number}"\n\n[dependencies]\nserde = {{ version = "1" }}\n'


def test_the_version_of_cargo_toml_is_that_of_the_package_and_the_wheel() -> None:
    assert version(CARGO) == jobrota.__version__
    assert wheel().name.startswith(f"jobrota-{jobrota.__version__}-")
    project = (REPOSITORY / "pyproject.toml").read_text(encoding="utf-8")
    assert 'dynamic = ["version"]' in project
    assert not re.search(r"^version\b", project, re.MULTILINE)


def test_the_notes_of_a_release_are_its_section_of_the_changelog() -> None:
    assert notes("v1.2.0", cargo("1.2.0"), RELEASED) == "- Rows are rows.\n"


@pytest.mark.parametrize(
    ("tag", "number", "problem"),
    [
        ("v1.2.1", "1.2.0", "the tag is v1.2.1 and Cargo.toml has version 1.2.0"),
        ("1.2.0", "1.2.0", "tag v1.2.0"),
        ("v1.3.0", "1.3.0", "write the date of the release"),
        ("v1.4.0", "1.4.0", "CHANGELOG.md has no section"),
    ],
)
def test_a_tag_without_its_version_or_changes_is_refused(tag: str, number: str, problem: str) -> None:
    with pytest.raises(SystemExit, match=re.escape(problem)):
        notes(tag, cargo(number), RELEASED)


def test_the_tool_reads_this_repository() -> None:
    command = [sys.executable, str(REPOSITORY / "tools" / "release_notes.py"), "v0.0.0"]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=60)
    assert done.returncode == 1
    assert f"Cargo.toml has version {jobrota.__version__}" in done.stderr
