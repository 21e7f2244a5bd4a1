"""Pages that name files and packages name those that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DEPENDENCIES = (REPOSITORY / "docs" / "dependencies.md").read_text(encoding="utf-8")


def settings(name: str) -> dict[str, Any]:
    loaded: dict[str, Any] = tomllib.loads((REPOSITORY / name).read_text(encoding="utf-8"))
    return loaded


def first_cells(section: str) -> list[str]:
    """The packages in the first column of the tables of a section."""
    body = DEPENDENCIES.split(f"\n## {section}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"^\| `([^`]+)` \|", body, re.MULTILINE)


def test_direct_crates_have_reasons() -> None:
    cargo = settings("Cargo.toml")
    tables = [cargo, *cargo.get("target", {}).values()]
    kinds = ("dependencies", "dev-dependencies", "build-dependencies")
    direct = {name for table in tables for kind in kinds for name in table.get(kind, {})}
    named = first_cells("Rust")
    assert sorted(named) == sorted(direct)


def test_direct_packages_have_reasons() -> None:
    project = settings("pyproject.toml")
    listed = list(project["build-system"]["requires"]) + list(project["project"]["dependencies"])
    for group in [*project["project"]["optional-dependencies"].values(), *project["dependency-groups"].values()]:
        listed += [requirement for requirement in group if isinstance(requirement, str)]
    direct = {re.split(r"[^\w.-]", requirement)[0].lower() for requirement in listed}
    named = first_cells("Python")
    assert sorted(named) == sorted(direct)


def duplicates() -> set[tuple[str, str]]:
    """Each older version of a crate that is there twice: `("getrandom", "0.2")`."""
    command = ["cargo", "tree", "--locked", "--duplicates", "--depth", "0", "--prefix", "none", "--format", "{p}"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    versions: dict[str, set[tuple[int, ...]]] = {}
    for name, version in re.findall(r"^(\S+) v([\d.]+)", done.stdout, re.MULTILINE):
        versions.setdefault(name, set()).add(tuple(int(part) for part in version.split(".")))
    return {
        (name, f"{version[0]}" if version[0] else f"0.{version[1]}")
        for name, found in versions.items()
        for version in sorted(found)[:-1]
    }


@pytest.mark.skipif(not shutil.which("cargo"), reason="cargo is not on the PATH")
def test_duplicate_versions_have_reasons() -> None:
    found = duplicates()
    skipped = {tuple(entry["crate"].split("@")) for entry in settings("deny.toml")["bans"]["skip"]}
    assert skipped == found
    table = DEPENDENCIES.split("\n## Duplicate versions\n", 1)[1]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert set(re.findall(r"`([\w-]+)` ([\d.]+)", " ".join(cells))) == found


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md"])
def test_paths_that_a_page_names_exist(page: str) -> None:
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    roots = r"src|python|tests|docs|benches|notebooks|examples|config|tools|\.\w+"
    named = set(re.findall(rf"(?<![\w/.])((?:{roots})/[\w./-]*[\w/])", text))
    assert named
    missing = sorted(path for path in named if not path.startswith(".venv/") and not (REPOSITORY / path).exists())
    assert missing == []


def test_glossary_is_sorted_and_unique() -> None:
    text = (REPOSITORY / "docs" / "glossary.md").read_text(encoding="utf-8")
    for section in text.split("\n## ")[1:]:
        words = [word.casefold() for word in re.findall(r"^\| \*\*(.+?)\*\* \|", section, re.MULTILINE)]
        assert words == sorted(words)
    everywhere = re.findall(r"^\| \*\*(.+?)\*\* \|", text, re.MULTILINE)
    assert len(everywhere) == len(set(everywhere)) > 20


def test_each_page_is_reachable_from_readme() -> None:
    reached: set[Path] = set()
    pending = [REPOSITORY / "README.md"]
    while pending:
        page = pending.pop()
        if page in reached or page.suffix != ".md" or not page.exists():
            continue
        reached.add(page)
        targets = re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8"))
        pending += [(page.parent / target).resolve() for target in targets]
    pages = {*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md")}
    assert sorted(page.name for page in pages - reached) == []


def test_the_settings_page_has_all_settings() -> None:
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page, re.MULTILINE)
    checks = [check.name for check in jobrota.doctor().checks if check.area == "settings"]
    assert rows == [(name, f"JOBROTA_{name.upper()}") for name in checks if name != "settings file"]


def test_the_command_page_has_all_commands_and_options() -> None:
    command = [sys.executable, "-X", "utf8", str(REPOSITORY / "tools" / "command_page.py")]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True, timeout=60)
    page = (REPOSITORY / "docs" / "command.md").read_text(encoding="utf-8")
    assert page == done.stdout, "run python tools/command_page.py > docs/command.md"
