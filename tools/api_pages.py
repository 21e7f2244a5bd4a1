"""Writes the reference of the Python API, one page per part: `python tools/api_pages.py FOLDER`.

Signatures come from the sources and, for the native module, from its stubs. Descriptions are those of `help()`.
`make docs` runs it. A public name that is on no page, or has no description, is an error.
"""

from __future__ import annotations

import inspect
import pydoc
import sys
import textwrap
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import griffe

# The names of each page. A module stands for all of its names that no page has under another name.
PAGES: dict[str, tuple[str, list[str]]] = {
    "selection": ("Selection", ["RoundRobinSelector", "Selection", "Inventory"]),
    "ledger": (
        "Ledger",
        [
            "JobLedger", "LedgerSummary", "ImportReport", "MaintenanceReport", "migrate", "MigrationReport",
            "TableMigration",
        ],
    ),
    "delivery": ("AutoSys", ["AutosysUpdater", "DeliveryReport", "autosys"]),
    "comparison": (
        "Comparison",
        [
            "ViyaComparisonRunner", "Arm", "ComparisonResult", "ComparisonWarning", "comparison_history", "report",
            "viya",
        ],
    ),
    "notebook": (
        "Notebook functions",
        [
            "configure", "select_reachable_vm", "ping_test", "log_job_execution", "log_job_completion",
            "fetch_unprocessed_updates", "update_autosys_flag", "autosys_update_runner", "Row",
        ],
    ),
    "doctor": ("Doctor", ["doctor", "DoctorReport", "Check"]),
    "sandbox": ("Sandbox and tests", ["Sandbox", "sandbox_calibration", "sandbox_systems", "stand_ins"]),
    "table": ("Tables that methods return", ["Table"]),
    "errors": ("Errors", ["errors"]),
}  # fmt: skip
HEAD = (
    "This page is made from the docstrings, which `help()` shows too. Types that begin with an underscore are those of "
    "the stubs of the native module: `_Duration` is a [duration](../python.md#durations), `_Location` a path or a URI, "
    "and `_Arrow` any Arrow data."
)
NOT_DESCRIBED = {"__version__"}
TWIN = "_async"


def main() -> None:
    """Writes the pages into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    package = griffe.load("jobrota")
    written: set[str] = set()
    for name, (title, names) in PAGES.items():
        parts = [f"# {title}", HEAD]
        for public in names:
            parts += entry(package, public, written)
        (folder / f"{name}.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    missing = sorted(set(public_names("jobrota")) - written - NOT_DESCRIBED)
    if missing:
        raise SystemExit(f"no page of the reference has {', '.join(missing)}: add them to PAGES in {__file__}")


def public_names(module: str) -> list[str]:
    """Returns the names of a module without the coroutines that are twins of another name."""
    names: list[str] = pydoc.locate(module).__all__  # type: ignore[attr-defined]
    return [name for name in names if not is_twin(name, names)]


def is_twin(name: str, names: Collection[str]) -> bool:
    """Returns whether a name is that of the coroutine of another one."""
    return name.endswith(TWIN) and name.removesuffix(TWIN) in names


def entry(package: Any, name: str, written: set[str]) -> Iterator[str]:
    """Yields the text about a public name of the package, or about all names of one of its modules."""
    live = pydoc.locate(f"jobrota.{name}")
    written.add(name)
    if not inspect.ismodule(live):
        yield from described(package[name], live, name, 2)
        return
    yield f"## {live.__name__}"
    yield from text_of(live, live.__name__)
    for member in public_names(live.__name__):
        written.add(member)
        yield from described(package[name][member], getattr(live, member), f"{name}.{member}", 3)


def described(thing: Any, live: Any, name: str, level: int) -> Iterator[str]:
    """Yields heading, signature and description of a name, and of the members if it is a class."""
    yield f"{'#' * level} {name}"
    if thing.is_attribute:
        yield doc(thing.docstring and thing.docstring.value, name)
        return
    yield signature(thing, name)
    yield from text_of(live, name)
    if thing.is_class:
        members = thing.all_members
        public = [member for member in members if not member.startswith("_") and not is_twin(member, members)]
        # Fields of Python classes are described with the class.
        properties = [member for member in public if inspect.isdatadescriptor(getattr(live, member, None))]
        if properties:
            yield "**Attributes**"
            yield "\n".join(
                f"- `{member}` (`{members[member].annotation}`): {indented(doc(getattr(live, member), member))}"
                for member in properties
            )
        for member in public:
            if not members[member].is_attribute:
                short = f"{name.rpartition('.')[2]}.{member}"
                yield from described(members[member], getattr(live, member), short, level + 1)


def signature(thing: Any, name: str) -> str:
    """Returns how a class or function is called, with its annotations, in a code block."""
    called = thing
    if thing.is_class:
        called = next((thing.all_members[new] for new in ("__new__", "__init__") if new in thing.all_members), None)
        if called is None:
            return f"`class {name}`"
    short = name.rpartition(".")[2]
    lines = [shown(overload, short) for overload in called.overloads or [called]]
    if f"{thing.name}{TWIN}" in thing.parent.all_members:
        lines.append(f"# as a coroutine: {short}{TWIN}")
    return "```python\n" + "\n".join(lines) + "\n```"


def shown(function: Any, name: str) -> str:
    """Returns a signature, with one argument a line if it is long."""
    kinds = griffe.ParameterKind
    arguments: list[str] = []
    previous = None
    for parameter in function.parameters:
        if parameter.name in ("self", "cls") and not arguments:
            continue
        if previous is kinds.positional_only and parameter.kind is not kinds.positional_only:
            arguments.append("/")
        if parameter.kind is kinds.keyword_only and previous not in (kinds.keyword_only, kinds.var_positional):
            arguments.append("*")
        previous = parameter.kind
        stars = {kinds.var_positional: "*", kinds.var_keyword: "**"}.get(parameter.kind, "")
        equals = " = " if parameter.annotation else "="
        default = "" if stars or parameter.default is None else f"{equals}{parameter.default}"
        annotation = f": {parameter.annotation}" if parameter.annotation else ""
        arguments.append(f"{stars}{parameter.name}{annotation}{default}")
    if previous is kinds.positional_only:
        arguments.append("/")
    returned = f" -> {function.returns}" if function.returns and function.name not in ("__new__", "__init__") else ""
    line = f"{name}({', '.join(arguments)}){returned}"
    if len(line) <= 100:
        return line
    return f"{name}(\n" + "".join(f"    {argument},\n" for argument in arguments) + f"){returned}"


def doc(live: Any, name: str) -> str:
    """Returns the description that `help()` shows. Of a constant, it is given.

    Raises:
        SystemExit: There is none.
    """
    text = live if isinstance(live, str) else inspect.getdoc(live)
    if not text:
        raise SystemExit(f"{name} has no description: write a docstring")
    return text


def text_of(live: Any, name: str) -> Iterator[str]:
    """Yields the description that `help()` shows, as Markdown."""
    for section in griffe.Docstring(doc(live, name)).parse("google", warnings=False):
        if section.kind is griffe.DocstringSectionKind.text:
            yield with_code(section.value)
        elif section.kind is griffe.DocstringSectionKind.examples:
            yield "**Examples**"
            for kind, value in section.value:
                is_code = kind is griffe.DocstringSectionKind.examples
                yield f"```pycon\n{value}\n```" if is_code else value
        elif section.kind is griffe.DocstringSectionKind.admonition:
            yield f"**{section.title}**"
            yield with_code(section.value.description)
        else:
            yield f"**{section.kind.value.replace('_', ' ').capitalize()}**"
            yield "\n".join(item(one) for one in section.value)


def item(one: Any) -> str:
    """Returns an entry of a section such as `Args` as an item of a list."""
    head = getattr(one, "name", "") or (one.annotation if hasattr(one, "annotation") else "")
    text = indented(one.description)
    return f"- `{head}`: {text}" if head else f"- {text}"


def indented(text: str) -> str:
    """Returns text that stays within the item of a list."""
    return textwrap.indent(text.strip(), "    ").strip()


def with_code(text: str) -> str:
    """Returns text in which examples that begin with `>>>` are code blocks."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(
        f"```pycon\n{paragraph}\n```" if paragraph.startswith(">>>") else paragraph for paragraph in paragraphs
    )


if __name__ == "__main__":
    main()
