"""`jobrota completion`: a real bash completes with the script, and without shtab the error says what to install."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from support import run


@pytest.fixture
def script(capsys: pytest.CaptureFixture[str]) -> str:
    assert run("completion", "bash") == 0
    return capsys.readouterr().out


def completed(script: str, *words: str) -> list[str]:
    """What bash offers for the last of the words."""
    # bash calls the function of the command, with the words in variables, when a user presses the tabulator.
    ask = f"""{script}
set -- $(complete -p jobrota)
while [ "$1" != -F ]; do shift; done
COMP_WORDS=({shlex.join(("jobrota", *words))})
COMP_CWORD={len(words)}
"$2"
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    command = ["bash", "--noprofile", "--norc"]
    done = subprocess.run(command, input=ask, capture_output=True, text=True, timeout=60, check=True)
    return done.stdout.split()


def test_bash_completes_commands_options_choices_and_files(script: str) -> None:
    assert completed(script, "auto") == ["autosys"]
    assert completed(script, "autosys", "de") == ["deliver"]
    assert completed(script, "autosys", "deliver", "--tr") == ["--transport"]
    assert completed(script, "autosys", "deliver", "--order", "") == ["per_job", "latest", "none"]
    assert completed(script, "completion", "z") == ["zsh"]
    Path("vms.yaml").touch()
    Path("ledger").mkdir()
    assert completed(script, "vms", "status", "--inventory", "vm") == ["vms.yaml"]
    assert completed(script, "ledger", "status", "--ledger", "l") == ["ledger"]
    assert completed(script, "ledger", "status", "--ledger", "vm") == [], "a file is no directory"


@pytest.mark.parametrize(("shell", "first"), [("zsh", "#compdef jobrota"), ("tcsh", "# AUTOMATICALLY GENERATED")])
def test_other_shells_have_all_commands(shell: str, first: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", shell) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(first)
    for word in ("autosys", "deliver", "--fail-on", "maintain", "completion"):
        assert word in shown


def test_zsh_registers_the_script_that_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", "zsh") == 0
    assert "if [[ $zsh_eval_context[-1] == (eval|file) ]]" in capsys.readouterr().out


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("completion", "cmd") == 2
    assert "bash" in capsys.readouterr().err


def test_without_shtab_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "shtab", None)
    assert run("completion", "bash") == 2
    shown = capsys.readouterr()
    assert "pip install 'shtab" in shown.err
    assert shown.out == ""
