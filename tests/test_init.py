"""`jobrota init`: the file that it writes is read as it says."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from jobrota._native import settings_lookup
from support import REPOSITORY, run


def test_each_setting_has_a_comment_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init") == 0
    assert capsys.readouterr().out == "settings file: jobrota.toml\n"
    path = Path("jobrota.toml")
    written = path.read_text(encoding="utf-8")
    examples = re.findall(r'^# (\w+) = "(.+)"$', written, re.MULTILINE)
    page = (REPOSITORY / "docs" / "settings.md").read_text(encoding="utf-8")
    settings = re.findall(r"^\| `(\w+)` \| `JOBROTA_\w+` \|", page, re.MULTILINE)
    assert sorted(name for name, _ in examples) == sorted(settings)
    assert all(settings_lookup(name) is None for name in settings)
    assert run("doctor", "--json") == 0
    assert "are no settings" not in capsys.readouterr().out
    path.write_text(re.sub(r'^# (\w+ = ".+")$', r"\1", written, flags=re.MULTILINE), encoding="utf-8")
    assert {name: settings_lookup(name) for name in settings} == dict(examples)


@pytest.mark.parametrize("name", ["/data/ledger", 'a "b" \\c', "ünï\x7f\t", "abfss://c@a.dfs.core.windows.net/x"])
def test_given_values_are_set(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("init", "--ledger", name, "--base-url", "https://viya.example.com", "--json") == 0
    assert json.loads(capsys.readouterr().out)["settings"]["ledger"] == name
    assert settings_lookup("ledger") == name
    assert settings_lookup("base_url") == "https://viya.example.com"
    assert settings_lookup("inventory") is None


def test_an_existing_file_stays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "new" / "mine.toml"
    assert run("init", "-o", path, "--inventory", "vms.yaml") == 0
    assert f"JOBROTA_CONFIG={path}" in capsys.readouterr().out
    monkeypatch.setenv("JOBROTA_CONFIG", str(path))
    assert settings_lookup("inventory") == "vms.yaml"
    before = path.read_text()
    assert run("init", "-o", path) == 2
    assert "was not changed" in capsys.readouterr().err
    assert path.read_text() == before
    assert run("init", "-o", path, "--force") == 0
    assert settings_lookup("inventory") is None
    assert run("init", "-o", path / "below.toml") == 1
    assert "cannot be written" in capsys.readouterr().err
