"""The site of the documentation has every page once, and every public name. `make docs` builds it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import REPOSITORY
from test_docs import settings


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of the reference of the Python API."""
    folder = tmp_path_factory.mktemp("api")
    command = [sys.executable, str(REPOSITORY / "tools" / "api_pages.py"), str(folder)]
    subprocess.run(command, check=True, timeout=60)
    return folder


def targets(entries: Any) -> Iterator[str]:
    """The pages of a navigation."""
    for entry in entries:
        for target in entry.values():
            if isinstance(target, str):
                yield target
            else:
                yield from targets(target)


def test_the_navigation_has_each_page_once(api: Path) -> None:
    found = Counter(targets(settings("zensical.toml")["project"]["nav"]))
    pages = {*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *(REPOSITORY / "examples").rglob("*.md")}
    expected = [str(page.relative_to(REPOSITORY)) for page in pages]
    expected += [f"docs/api/{page.name}" for page in api.iterdir()]
    assert found == Counter(expected)


def test_the_readme_shows_each_picture_that_make_pictures_makes() -> None:
    made = re.findall(r'"(\w+\.png)": \w+', (REPOSITORY / "tools" / "pictures.py").read_text(encoding="utf-8"))
    shown = re.findall(r"!\[[^]]+\]\(docs/pictures/(\S+)\)", (REPOSITORY / "README.md").read_text(encoding="utf-8"))
    kept = [path.name for path in (REPOSITORY / "docs" / "pictures").iterdir()]
    assert sorted(made) == sorted(shown) == sorted(kept) != []


def test_the_reference_has_each_public_name_with_its_description(api: Path) -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in sorted(api.iterdir()))
    headings = {name.rpartition(".")[2] for name in re.findall(r"^#+ (\S+)$", text, re.MULTILINE)}
    coroutines = set(re.findall(r"^# as a coroutine: (\w+)$", text, re.MULTILINE))
    assert set(jobrota.__all__) - headings - coroutines == {"__version__"}
    assert {"SendEvent", "Ssh", "Credentials", "ViyaSession", "Dbutils", "SandboxAutosys"} <= headings
    # Signatures have the annotations of the stubs, and the sections of a docstring are lists.
    assert "    durability: Literal['store', 'fsync'] = 'store',\n" in text
    assert "- `retain_hours`: How long files and log entries" in text
    assert "#### RoundRobinSelector" not in text
    assert (
        "### JobLedger.maintain\n\n```python\nmaintain(*, retain_hours: _Duration = 168.0) -> MaintenanceReport" in text
    )
