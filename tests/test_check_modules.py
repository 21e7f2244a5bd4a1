"""The check of circles and layers (tools/check_modules.py), on small trees: one for each kind of import."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest


def load_check() -> Any:
    path = Path(__file__).parent.parent / "tools" / "check_modules.py"
    spec = importlib.util.spec_from_file_location("check_modules", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["check_modules"] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


check_modules = load_check()


def write(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def imports(root: Path, file: str) -> dict[str, set[str]]:
    graph: dict[str, dict[str, set[str]]] = check_modules.Crate(root).graph()
    return graph[file]


LIB = "pub mod delta;\npub mod ledger;\npub mod error;\n"


@pytest.mark.parametrize(
    "text",
    [
        "use crate::delta::table::Table;",
        "use crate::delta::{Other, table::{Table}};",
        "use crate::delta::{self, table::{self, Table as T}};",
        "use crate::{delta::table::Table, error::Error};",
        "use super::delta::table::Table;",
        "use self::super::delta::table::Table;",
        "pub(crate) use crate::delta::table::Table;",
        "fn f() -> crate::delta::table::Table { todo!() }",
        'fn f() { let _ = super::delta::table::Table::open("a"); }',
        "use crate::delta::table; fn f(table: &table::Table) {}",
        "use crate::delta; fn f(table: &delta::table::Table) {}",
        "use crate::delta as tables; fn f(table: &tables::table::Table) {}",
        "fn f() { use crate::delta::table::Table; }",
        "mod inner { use crate::delta::table::Table; }",
        "use crate::delta::table::*; fn f(table: &Table) {}",
        "const SIGN: char = '\"'; use crate::delta::table::Table; const OTHER: char = '\"';",
        'const RAW: &str = r#" " "#; fn f<\'a>(t: &\'a crate::delta::table::Table) {}',
        "macro_rules! m { () => { $crate::delta::table::Table } }",
    ],
)
def test_an_import_of_a_file_is_seen(tmp_path: Path, text: str) -> None:
    write(
        tmp_path,
        {
            "src/lib.rs": LIB,
            "src/error.rs": "pub struct Error;",
            "src/delta/mod.rs": "pub mod table; pub struct Other;",
            "src/delta/table.rs": "pub struct Table;",
            "src/ledger.rs": text,
        },
    )
    assert "src/delta/table.rs" in imports(tmp_path, "src/ledger.rs")


@pytest.mark.parametrize(
    "text",
    [
        "// use crate::delta::table::Table;",
        "/* use /* nested */ crate::delta::table::Table; */",
        "/// See [`crate::delta::table::Table`].\nfn f() {}",
        'const TEXT: &str = "crate::delta::table::Table";',
        'const TEXT: &str = r#"use crate::delta::table::Table;"#;',
        "#[cfg(test)] use crate::delta::table::Table;",
        "#[cfg(test)] mod tests { use crate::delta::table::Table; }",
        "#[cfg(test)] fn f() -> crate::delta::table::Table { todo!() }",
        "struct S { #[cfg(test)] table: crate::delta::table::Table }",
        "use std::table::Table; use delta_kernel::table::Table as Other;",
        "use ::delta::table::Table;",
    ],
)
def test_text_and_tests_are_no_imports(tmp_path: Path, text: str) -> None:
    write(
        tmp_path,
        {
            "src/lib.rs": LIB,
            "src/delta/mod.rs": "pub mod table;",
            "src/delta/table.rs": "pub struct Table;",
            "src/ledger.rs": text,
        },
    )
    assert imports(tmp_path, "src/ledger.rs") == {}


def test_a_module_for_tests_is_not_read(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "src/lib.rs": LIB,
            "src/delta.rs": "pub struct Table; #[cfg(test)] mod check;",
            "src/delta/check.rs": "use crate::ledger::JobLedger;",
            "src/delta/tests/mod.rs": "use crate::ledger::JobLedger;",
            "src/ledger.rs": "use crate::delta::Table; pub struct JobLedger;",
        },
    )
    graph = check_modules.Crate(tmp_path).graph()
    assert set(graph) == {"src/lib.rs", "src/delta.rs", "src/ledger.rs"}
    assert check_modules.circles(graph) == []


def test_reexport_counts_for_parent_and_definition(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "src/lib.rs": "pub mod delta; pub mod ledger; pub use delta::Table;",
            "src/delta/mod.rs": "mod table; mod scan; pub use table::{Table, View as Snapshot}; pub use scan::*;",
            "src/delta/table.rs": "pub struct Table; pub struct View;",
            "src/delta/scan.rs": "pub fn scan() {}",
            "src/ledger/mod.rs": "pub mod a; pub mod b; pub mod c; pub mod d; use crate::delta::Table;",
            "src/ledger/a.rs": "use crate::delta::Snapshot;",
            "src/ledger/b.rs": "use crate::delta; fn f() { delta::scan() }",
            "src/ledger/c.rs": "use super::Table;",
            "src/ledger/d.rs": "use crate::Table;",
        },
    )
    assert set(imports(tmp_path, "src/ledger/a.rs")) == {"src/delta/mod.rs", "src/delta/table.rs"}
    assert set(imports(tmp_path, "src/ledger/b.rs")) == {"src/delta/mod.rs", "src/delta/scan.rs"}
    assert set(imports(tmp_path, "src/ledger/c.rs")) == {"src/ledger/mod.rs", "src/delta/table.rs"}
    assert set(imports(tmp_path, "src/ledger/d.rs")) == {"src/delta/table.rs"}


def circles(root: Path, files: dict[str, str]) -> list[list[str]]:
    found: list[list[str]] = check_modules.circles(check_modules.Crate(write(root, files)).graph())
    return found


def test_siblings_that_import_each_other_are_a_circle(tmp_path: Path) -> None:
    assert circles(
        tmp_path,
        {
            "src/lib.rs": "mod delta;",
            "src/delta/mod.rs": "mod a; mod b; mod c;",
            "src/delta/a.rs": "use super::b::B; pub struct A;",
            "src/delta/b.rs": "use super::c::C; pub struct B;",
            "src/delta/c.rs": "use super::a::A; pub struct C;",
        },
    ) == [["src/delta/a.rs", "src/delta/b.rs", "src/delta/c.rs"]]


def test_module_and_children_may_import_each_other(tmp_path: Path) -> None:
    assert (
        circles(
            tmp_path,
            {
                "src/lib.rs": "mod delta;",
                "src/delta.rs": "mod a; mod b; pub use a::A; pub struct Table; fn f() { b::g() }",
                "src/delta/a.rs": "mod deep; use super::Table; use self::deep::D; pub struct A;",
                "src/delta/a/deep.rs": "use super::A; use crate::delta::Table; pub struct D;",
                "src/delta/b.rs": "use super::{A, Table}; pub fn g() {}",
            },
        )
        == []
    )


def test_circle_through_parent_is_found(tmp_path: Path) -> None:
    # warnings -> analysis/arm -> analysis -> warnings: no two siblings import each other.
    assert circles(
        tmp_path,
        {
            "src/lib.rs": "mod analysis; mod warnings;",
            "src/analysis.rs": "pub mod arm; use crate::warnings::Warning; pub struct Kind;",
            "src/analysis/arm.rs": "use super::Kind; pub struct Arm;",
            "src/warnings.rs": "use crate::analysis::arm::Arm; pub struct Warning;",
        },
    ) == [["src/analysis.rs", "src/analysis/arm.rs", "src/warnings.rs"]]


def test_a_circle_through_what_a_parent_exports_is_found(tmp_path: Path) -> None:
    assert circles(
        tmp_path,
        {
            "src/lib.rs": "mod analysis; mod warnings;",
            "src/analysis.rs": "mod arm; pub use arm::Arm; use crate::warnings::Warning;",
            "src/analysis/arm.rs": "pub struct Arm;",
            "src/warnings.rs": "use crate::analysis::Arm; pub struct Warning;",
        },
    ) == [["src/analysis.rs", "src/warnings.rs"]]


def test_imports_of_python_are_read_also_in_functions(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "python/jobrota/__init__.py": "from jobrota._native import Table\nfrom .report import show\n",
            "python/jobrota/_native.pyi": "class Table: ...\n",
            "python/jobrota/cli.py": "def main() -> None:\n    from jobrota.commands import vms\n    vms.run()\n",
            "python/jobrota/commands/__init__.py": "",
            "python/jobrota/commands/vms.py": "from .. import Table\nimport jobrota.cli\n",
            "python/jobrota/report/__init__.py": "from .page import show as show\n",
            "python/jobrota/report/page.py": "from jobrota import Table\ndef show() -> None: ...\n",
            "python/jobrota/demo.py": "from .report import show\n",
        },
    )
    graph = check_modules.Package(tmp_path).graph()
    assert set(graph["python/jobrota/cli.py"]) == {
        "python/jobrota/commands/__init__.py",
        "python/jobrota/commands/vms.py",
    }
    assert set(graph["python/jobrota/commands/vms.py"]) == {"python/jobrota/_native.pyi", "python/jobrota/cli.py"}
    assert set(graph["python/jobrota/demo.py"]) == {
        "python/jobrota/report/__init__.py",
        "python/jobrota/report/page.py",
    }
    assert check_modules.circles(graph) == [["python/jobrota/cli.py", "python/jobrota/commands/vms.py"]]


@pytest.mark.parametrize(
    ("file", "text", "error"),
    [
        ("src/ledger/mod.rs", "use crate::delta::Table;", None),
        ("src/delta/mod.rs", "use crate::ledger::JobLedger; pub struct Table;", "ledger is not below delta"),
        ("src/viya.rs", "use crate::azure::Cloud;", "azure is not below viya"),
        ("src/doctor.rs", "use crate::sandbox::Sandbox;", "only python may import sandbox"),
        ("src/error.rs", "use crate::settings::Setting;", None),
        ("src/error.rs", "use crate::delta::Table;", "delta is not below error"),
        ("src/attic.rs", "pub struct Box;", "the room 'attic' is not in LAYERS"),
    ],
)
def test_layers(tmp_path: Path, file: str, text: str, error: str | None) -> None:
    files = {
        "src/lib.rs": "",
        "src/azure.rs": "pub struct Cloud;",
        "src/delta/mod.rs": "pub struct Table;",
        "src/ledger/mod.rs": "pub struct JobLedger;",
        "src/sandbox/mod.rs": "pub struct Sandbox;",
        "src/settings.rs": "pub struct Setting;",
    }
    errors = check_modules.layer_errors(check_modules.Crate(write(tmp_path, files | {file: text})).graph())
    assert len(errors) == (error is not None)
    assert error is None or error in errors[0]


def test_pyo3_and_words(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "README.md": "Some" + "body else\n",
            "docs/picture.png": "no" + "body reads this as text",
            "CONTRIBUTING.md": "",
            "src/delta.rs": "use pyo3::prelude::*;\n// no" + "body\n",
            "src/python/mod.rs": "use pyo3::prelude::*;\n",
        },
    )
    assert check_modules.python_errors(tmp_path) == ["src/delta.rs names pyo3, which only src/python/ may"]
    found = check_modules.word_errors(tmp_path)
    assert [error.rpartition(":")[0].partition(": ")[0] for error in found] == ["src/delta.rs:2", "README.md:1"]


def test_a_simulated_room_has_no_clock_and_no_random_numbers_of_its_own(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "src/delta/a.rs": "fn a() { Utc::now(); }\n// Utc::now()\nfn b() { since.elapsed(); }\n"
            "#[cfg(test)]\nmod tests {\n    fn c() { Instant::now(); }\n}\n",
            "src/delivery/b.rs": "fn a() { rand::random(); environment().utc(); }\nfn b() { thread::sleep(c); }\n",
            "src/delivery/tests/c.rs": "fn a() { Uuid::new_v4(); }\n",
            "src/viya/d.rs": "fn a() { Instant::now(); }\n",
        },
    )
    found = check_modules.environment_errors(tmp_path)
    assert [error.partition(": ")[0] for error in found] == [
        "src/delivery/b.rs:1",
        "src/delivery/b.rs:2",
        "src/delta/a.rs:1",
        "src/delta/a.rs:3",
    ]


def test_the_command_names_every_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write(
        tmp_path,
        {
            "README.md": "",
            "CONTRIBUTING.md": "",
            "src/lib.rs": "mod delta;",
            "src/delta/mod.rs": "mod a; mod b;",
            "src/delta/a.rs": "use super::b::B; pub struct A;",
            "src/delta/b.rs": "use super::a::A; pub struct B;",
        },
    )
    assert check_modules.main([str(tmp_path)]) == 1
    assert "2 files import each other:\n  src/delta/a.rs -> src/delta/b.rs: B\n" in capsys.readouterr().err
    (tmp_path / "src/delta/b.rs").write_text("pub struct B;")
    assert check_modules.main([str(tmp_path)]) == 0
