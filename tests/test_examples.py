"""Examples run: docstrings of native classes and the scripts of `examples/`.

pytest itself collects the example tests of `examples/`. `test_pages.py` runs the code of the pages.
"""

from __future__ import annotations

import doctest
import inspect
import re
import runpy
from collections.abc import Iterator

import pytest

import jobrota
from jobrota import _native
from support import REPOSITORY

# What each script prints, among other lines.
SCRIPTS = {
    "await_calls.py": ["ran on vm1, vm2", "sent STUDY.AE SUCCESS", "2 delivered, 0 pending"],
    "azure_inventory.py": ["vm1 127.0.0.11 vm1-nic", "'vm-deallocated': 'is deallocated'", "1 delivered through vm1"],
    "check_machine.py": ["Ledger root", "writable", "jobrota can work here"],
    "compare_contexts.py": ["180 jobs, 0 failed", "times the time", "report.html: ", "report.xlsx: "],
    "import_and_maintain.py": [
        "3 files: 3 imported, 0 known, 3 rows written",
        "3 files: 0 imported, 3 known, 0 rows written",
        "pending: ['STUDY.AE0', 'STUDY.AE1', 'STUDY.AE2']",
        "23 rows, problems: []",
    ],
    "log_in_and_discover.py": [
        "sas_tokens.json has mode 0600",
        "user sandbox, renewable: True",
        "definitions: ['ae_pooled']",
        "context 'Autoscaling POC Context'",
    ],
    "log_and_deliver.py": [
        "cycle 1: 2 delivered, 1 failed, 1 parked",
        "cycle 2: 1 delivered, 0 failed, 1 parked",
        "'STUDY.CM'",
        "parked: ['NOT A NAME']",
        "pending 0, parked 0",
    ],
    "select_vms.py": [
        "does not answer: vm3",
        "selected vm1",
        "vm2 is drained; selected vm",
        "all in use (retryable: True)",
        "vm3: 0 turns",
    ],
}


def documented() -> Iterator[tuple[str, str]]:
    """Each public name of the native module, with its description, in an order that all test processes share."""
    for name, thing in sorted(vars(_native).items()):
        if name.startswith("_"):
            continue
        yield name, inspect.getdoc(thing) or ""
        if inspect.isclass(thing):
            for member, attribute in sorted(vars(thing).items()):
                if not member.startswith("_"):
                    yield f"{name}.{member}", inspect.getdoc(attribute) or ""


@pytest.mark.parametrize(("name", "text"), list(documented()), ids=lambda value: value if len(value) < 60 else "")
def test_native_descriptions_are_there_and_their_examples_true(name: str, text: str) -> None:
    assert text, f"{name} has no description"
    examples = doctest.DocTestParser().get_doctest(text, {"jobrota": jobrota}, name, None, None)
    output: list[str] = []
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    doctest.DocTestRunner(optionflags=flags).run(examples, out=output.append)
    assert not output, "".join(output)


def test_each_script_is_run() -> None:
    scripts = [path.name for path in (REPOSITORY / "examples").glob("*.py") if not path.name.startswith("test_")]
    assert sorted(scripts) == sorted(SCRIPTS)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(REPOSITORY / "examples" / name), run_name="__main__")
    shown = capsys.readouterr().out
    for text in SCRIPTS[name]:
        assert text in shown


def test_the_documentation_links_to_files_that_exist() -> None:
    for page in [*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").glob("*.md"), *REPOSITORY.glob("examples/*.md")]:
        for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
