"""Every code block of the pages runs, as a reader pastes it. `tools/run_page.py` says what a block may be."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support import REPOSITORY

PAGES = [page for folder in (".", "docs", "examples") for page in sorted((REPOSITORY / folder).glob("*.md"))]


def run_page(page: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-X", "utf8", str(REPOSITORY / "tools" / "run_page.py"), str(page)]
    return subprocess.run(command, capture_output=True, encoding="utf-8", timeout=100)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_each_block_of_a_page_runs(page: Path) -> None:
    done = run_page(page)
    assert done.returncode == 0, done.stdout + done.stderr


def page_of(tmp_path: Path, *blocks: str) -> Path:
    page = tmp_path / "page.md"
    page.write_text("\n\n".join(f"Text.\n\n```{block}\n```" for block in blocks), encoding="utf-8")
    return page


@pytest.mark.parametrize(
    ("block", "reason"),
    [
        ("python\nprint(ledger)", "name 'ledger' is not defined"),
        ("python\nx =", "SyntaxError"),
        ("sh\nfalse\ntrue", "exit code 1"),
        ("sh\njobrota no-such-command", "exit code 2"),
        ("toml\nledger = ", "page.md:9: this block does not run"),
        ("json\n{'a': 1}", "page.md:9: this block does not run"),
        ("yaml\na: [", "page.md:9: this block does not run"),
        ("csv\na,b\n1", "the first row has 2"),
        ("text\nsomething else", "printed something else:\nhello"),
        ("rust\nfn main() {}", "cannot be executed"),
        ("\nmake test", "cannot be executed"),
        ('text title="notes.txt"\nhello', "cannot be checked"),
    ],
)
def test_a_block_that_does_not_run_is_found(tmp_path: Path, block: str, reason: str) -> None:
    done = run_page(page_of(tmp_path, "python\nprint('hello')", block))
    assert done.returncode == 1
    assert reason in done.stderr
    assert "page.md:9: this block does not run" in done.stderr


@pytest.mark.parametrize("code", ["~~~sh\nmake test\n~~~", "    make test", "```sh\nmake test"])
def test_code_outside_of_blocks_is_found(tmp_path: Path, code: str) -> None:
    page = page_of(tmp_path, "python\nprint('hello')")
    page.write_text(f"{page.read_text(encoding='utf-8')}\n\nText.\n\n{code}\n", encoding="utf-8")
    done = run_page(page)
    assert (done.returncode, done.stdout) == (1, "")
    assert "this code is in no block" in done.stderr


def test_blocks_share_names_files_and_shell(tmp_path: Path) -> None:
    blocks = [
        'toml title="settings/jobrota.toml"\nledger = "ledger"',
        "python\nfrom pathlib import Path\n\ntext = Path('settings/jobrota.toml').read_text()",
        "python\nimport asyncio\n\nawait asyncio.sleep(0)\nprint(text)",
        'text\nledger = "..."\n',
        "sh\nledger=$(cat settings/*.toml)\nsleep 600 &",
        'sh\ncat\necho "$ledger"; kill %1',
        'text\nledger = "ledger"',
    ]
    done = run_page(page_of(tmp_path, *blocks))
    assert (done.returncode, done.stdout) == (0, "page.md: 7 blocks\n"), done.stderr


def test_temporary_files_of_a_page_are_removed(tmp_path: Path) -> None:
    """A pytest of a page finds no directories of other runs, and does not remove them: this took minutes."""
    keep = tmp_path / "kept.txt"
    blocks = [
        f"sh\nmktemp >> {keep}",
        f"python\nimport tempfile\n\nwith open({str(keep)!r}, 'a') as kept:\n    print(tempfile.mkdtemp(), file=kept)",
    ]
    done = run_page(page_of(tmp_path, *blocks))
    assert done.returncode == 0, done.stderr
    left = [Path(line) for line in keep.read_text(encoding="utf-8").splitlines()]
    assert len(left) == 2
    assert not any(path.exists() for path in left)


def test_what_a_page_leaves_running_is_ended(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    try:
        done = run_page(page_of(tmp_path, f"sh\nsleep 600 > {pipe} &"))
        assert done.returncode == 0, done.stderr
        # The end of the file: no process has the pipe open for writing. Otherwise this raises BlockingIOError.
        assert os.read(reader, 1) == b""
    finally:
        os.close(reader)
