"""The paths of a report and its images, from the call and from the command."""

from __future__ import annotations

import asyncio
import inspect
import json
import re
import struct
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota import cli
from reported_runs import CHARTS, EVIL, recorded
from support import REPOSITORY

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


def test_images_of_every_chart(tmp_path: Path) -> None:
    result = jobrota.ComparisonResult.from_table(recorded())
    result.report(tmp_path / "report.html", images=tmp_path / "images")
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == sorted(f"{chart}.{extension}" for chart in CHARTS for extension in ("png", "svg"))
    for chart in CHARTS:
        png = (tmp_path / "images" / f"{chart}.png").read_bytes()
        assert png.startswith(b"\x89PNG")
        width, height = struct.unpack(">II", png[16:24])
        assert width > 900
        assert height > 100
        assert len(png) > 10_000
        root = ElementTree.parse(tmp_path / "images" / f"{chart}.svg").getroot()
        assert len(list(root.iter("{http://www.w3.org/2000/svg}path"))) > 5


def test_no_value_of_a_foreign_result_is_markup(tmp_path: Path) -> None:
    document = json.loads(jobrota.ComparisonResult.from_table(recorded()).save(tmp_path / "run.json").read_text())
    for arm in document["arms"]:
        arm["concurrent"] = EVIL
    page = jobrota.report.write(document, tmp_path / "run.html").read_text()
    assert "in flight" in page or "at most" in page
    assert "<img src=x" not in page


def test_the_command_writes_beside_the_result(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = jobrota.ComparisonResult.from_table(recorded()).save(tmp_path / "run.json")
    cli.main(["report", str(path), "--images", str(tmp_path / "images"), "--format", "svg", "--title", "A <title>"])
    assert str(tmp_path / "run.html") in capsys.readouterr().out
    page = (tmp_path / "run.html").read_text()
    assert "<title>A &lt;title&gt;</title>" in page
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".svg"}
    for arguments, code in (
        (["report", str(tmp_path / "none.json")], 1),
        (["report", str(path), "--images", "x", "--format", "gif"], 2),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(arguments)
        assert ended.value.code == code
        assert capsys.readouterr().err.startswith("jobrota: ")


def test_what_is_no_result_is_refused(tmp_path: Path) -> None:
    from jobrota import report

    with pytest.raises(jobrota.InvalidInputError, match="neither arms nor an analysis"):
        report.write({"jobs": []}, tmp_path / "x.html")
    with pytest.raises(jobrota.InvalidInputError, match="say where the report goes"):
        report.write(jobrota.ComparisonResult.from_table(recorded()))


def test_unwritable_report_loses_nothing(tmp_path: Path) -> None:
    from jobrota import report

    result = jobrota.ComparisonResult.from_table(recorded())
    assert report.write(result, tmp_path / "new" / "folder" / "x.html").exists()
    assert [path.name for path in (tmp_path / "new" / "folder").iterdir()] == ["x.html"]
    (tmp_path / "file").write_text("")
    with pytest.raises(jobrota.StorageError, match="name another file"):
        report.write(result, tmp_path / "file" / "x.html")
    with pytest.raises(jobrota.StorageError, match="name another file"):
        report.write(result, tmp_path)
    with pytest.raises(jobrota.StorageError, match="name another folder"):
        report.write(result, tmp_path / "x.html", images=tmp_path / "file", formats="svg")
    saved = Path(result.save(tmp_path / "run.html"))
    before = saved.read_bytes()
    for target in (None, saved, tmp_path / "new" / ".." / "run.html"):
        with pytest.raises(jobrota.InvalidInputError, match="the result itself"):
            report.write(saved, target)
    assert saved.read_bytes() == before
    for formats in ("gif", ["png", "gif"], []):
        with pytest.raises(jobrota.InvalidInputError, match="formats are png and svg"):
            report.write(result, tmp_path / "never.html", images=tmp_path / "images", formats=formats)
    assert not (tmp_path / "never.html").exists()
    report.write(result, tmp_path / "one.html", images=tmp_path / "images", formats="svg")
    assert {path.suffix for path in (tmp_path / "images").iterdir()} == {".svg"}


def test_without_the_extra_it_is_said_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from jobrota import report

    monkeypatch.setitem(sys.modules, "altair", None)
    result = jobrota.ComparisonResult.from_table(recorded())
    for call in (lambda: report.show(result), lambda: report.write(result, tmp_path / "x.html")):
        with pytest.raises(jobrota.MissingPackageError, match=r"extra 'report': pip install 'altair>=.*%pip install"):
            call()
    # No server, no jobs: the packages are checked before both.
    with pytest.raises(SystemExit):
        cli.main(["compare", "--base-url", "https://127.0.0.1:9", "--jobs", str(tmp_path / "none.json"), "--report"])
    assert "pip install 'altair>=" in capsys.readouterr().err


def test_the_error_names_the_packages_of_the_extra() -> None:
    from jobrota.report.extra import HOW_TO_INSTALL

    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert re.findall("'([^']+[<>=][^']+)'", HOW_TO_INSTALL) == project["optional-dependencies"]["report"]


def test_an_unknown_keyword_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    from jobrota import report

    result = jobrota.ComparisonResult.from_table(recorded())
    path = tmp_path / "x.html"
    wrong: Any = {"titel": "x"}
    misspelt: Any = {"heigth": 3}
    calls: list[Callable[[], object]] = [
        lambda: result.report(path, **wrong),
        lambda: report.write(result, path, **wrong),
        lambda: asyncio.run(result.report_async(path, **wrong)),
        lambda: asyncio.run(report.write_async(result, path, **wrong)),
    ]
    for call in calls:
        with pytest.raises(TypeError, match="unknown keyword titel: known are title, images, formats"):
            call()
    with pytest.raises(TypeError, match="unknown keyword heigth: known are height"):
        report.show(result, **misspelt)
    shown = "(path=None, *, title=None, images=None, formats=('png', 'svg'))"
    assert str(inspect.signature(result.report)) == str(inspect.signature(result.report_async)) == shown
