"""The licence texts in the wheel (tools/third_party.py), gathered from small sources of crates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support import REPOSITORY
from third_party import Crate, document, licence_files, texts_of

MIT = "MIT License\n\nCopyright (c) the authors of {name}\n"


def package(root: Path, name: str, licence: str, files: dict[str, str], repository: str = "") -> dict[str, Any]:
    """A crate's source, and what `cargo metadata` says of it."""
    for path, text in {"Cargo.toml": "", **files}.items():
        (root / name / path).parent.mkdir(parents=True, exist_ok=True)
        (root / name / path).write_text(text, encoding="utf-8")
    manifest = root / name / "Cargo.toml"
    return {"manifest_path": str(manifest), "license": licence, "license_file": None, "repository": repository or None}


def test_licences_and_notices_of_a_crate_and_licences_of_what_it_contains(tmp_path: Path) -> None:
    files = {
        "LICENSE-MIT": "",
        "NOTICE.txt": "",
        "license.rs": "",
        "vendored/LICENSE": "",
        "vendored/COPYING": "",
        "TERMS": "",
    }
    found = package(tmp_path, "one", "MIT", files) | {"license_file": "TERMS"}
    names = [str(path.relative_to(tmp_path / "one")) for path in licence_files(found)]
    assert names == ["LICENSE-MIT", "NOTICE.txt", "TERMS", "vendored/LICENSE"]


def test_each_different_text_is_there_once(tmp_path: Path) -> None:
    one, two, three = crates = [Crate(name, "1.0.0") for name in ("one", "three", "two")]
    text = MIT.format(name="one")
    known = {
        one: package(tmp_path, "one", "MIT", {"LICENSE": text}),
        two: package(tmp_path, "two", "MIT", {"LICENSE": text.replace("\n", "\r\n  ")}),
        three: package(tmp_path, "three", "MIT OR Zlib", {"LICENSE": MIT.format(name="three")}),
    }
    found = document(crates, known)
    assert "one 1.0.0: MIT [1]\nthree 1.0.0: MIT [1]\ntwo 1.0.0: MIT OR Zlib [2]\n" in found
    assert found.count("the authors of one") == found.count("the authors of three") == 1


def test_a_crate_without_a_text_gets_that_of_its_repository(tmp_path: Path) -> None:
    crate, sibling, other = (Crate(name, "1.0.0") for name in ("macros", "whole", "another"))
    known = {
        crate: package(tmp_path, "macros", "MIT", {}, "example/whole"),
        other: package(tmp_path, "another", "MIT", {"LICENSE": "another"}, "example/another"),
        sibling: package(tmp_path, "whole", "MIT", {"LICENSE": "whole"}, "example/whole"),
    }
    assert list(texts_of(crate, known)) == [("LICENSE of whole 1.0.0", tmp_path / "whole" / "LICENSE")]


def test_apache_is_the_same_for_each_author(tmp_path: Path) -> None:
    crate = Crate("one", "1.0.0")
    known = {crate: package(tmp_path, "one", "MIT OR Apache-2.0", {}, "example/one")}
    assert list(texts_of(crate, known)) == [("Apache-2.0", REPOSITORY / "LICENSE")]


@pytest.mark.parametrize("licence", ["MIT", "Apache-2.0 WITH LLVM-exception"])
def test_a_crate_without_any_text_is_refused(licence: str, tmp_path: Path) -> None:
    crate = Crate("one", "1.0.0")
    known = {crate: package(tmp_path, "one", licence, {}, "example/one")}
    with pytest.raises(SystemExit, match=r"the source of one 1\.0\.0 \(.+\) has no licence text"):
        list(texts_of(crate, known))
