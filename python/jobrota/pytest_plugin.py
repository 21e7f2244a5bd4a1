"""Fixtures of pytest for programs and notebooks that use jobrota.

The wheel registers this module as a plugin (`pytest11`), so a test only names the fixtures that it needs. No fixture is
used by itself, and `-p no:jobrota` switches the plugin off.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# pytest imports this module in each run, so the fixtures import what only they need.
if TYPE_CHECKING:
    from jobrota import JobLedger, Sandbox
    from jobrota.notebook_run import NotebookRun
    from jobrota.sandbox_systems import SandboxAutosys, SandboxVms
    from jobrota.stand_ins import Dbutils, Display

__all__ = [
    "NotebookRunner",
    "jobrota_autosys",
    "jobrota_dbutils",
    "jobrota_display",
    "jobrota_ledger",
    "jobrota_notebook",
    "jobrota_sandbox",
    "jobrota_sandbox_options",
    "jobrota_unconfigured",
    "jobrota_vms",
]


@pytest.fixture
def jobrota_unconfigured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is configured in the test, and afterwards all is as before.

    In the test, `configure` was not called, no variable `JOBROTA_…` of the shell is set, no `jobrota.toml` is read, and
    the state directory is the test's own. All fixtures that configure something include this one.
    """
    from inspect import signature

    from jobrota import configure
    from jobrota.notebook import configured_settings

    for name in list(os.environ):
        if name.startswith("JOBROTA_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("JOBROTA_CONFIG", os.devnull)
    # Beside `tmp_path`, which has only what the test puts there.
    monkeypatch.setenv("XDG_STATE_HOME", f"{tmp_path}-state")
    before = configured_settings()
    nothing: dict[str, Any] = dict.fromkeys(signature(configure).parameters)
    configure(**nothing)
    yield
    configure(**nothing | before)


@pytest.fixture
def jobrota_sandbox_options() -> dict[str, Any]:
    """The arguments of the sandbox. Override this fixture, or give it by `parametrize`, to change them."""
    return {"vms": 4, "vms_down": 0, "speed": 200}


@pytest.fixture
def jobrota_sandbox(jobrota_unconfigured: None, jobrota_sandbox_options: Mapping[str, Any]) -> Iterator[Sandbox]:
    """A `Sandbox` of the test's own, which starts within milliseconds. No earlier test has left anything in it."""
    from jobrota import Sandbox

    with Sandbox(**jobrota_sandbox_options) as sandbox:
        yield sandbox


@pytest.fixture
def jobrota_ledger(jobrota_unconfigured: None, tmp_path: Path) -> JobLedger:
    """An empty `JobLedger` in `tmp_path / "ledger"`. The notebook functions use it."""
    from jobrota import JobLedger, configure

    ledger = JobLedger(tmp_path / "ledger")
    configure(ledger=ledger)
    return ledger


@pytest.fixture
def jobrota_vms(jobrota_sandbox: Sandbox) -> SandboxVms:
    """The VMs of the sandbox, which the test takes down and brings up. The notebook functions select from them."""
    from jobrota import configure
    from jobrota.sandbox_systems import SandboxVms

    vms = SandboxVms(jobrota_sandbox)
    configure(inventory=jobrota_sandbox.inventory, probe=vms.probe)
    return vms


@pytest.fixture
def jobrota_autosys(jobrota_sandbox: Sandbox) -> SandboxAutosys:
    """The AutoSys of the sandbox, with the events that arrived. `autosys_update_runner()` sends to it."""
    from jobrota import configure
    from jobrota.sandbox_systems import SandboxAutosys

    autosys = SandboxAutosys(jobrota_sandbox)
    configure(transport=autosys.transport)
    return autosys


@pytest.fixture
def jobrota_dbutils() -> Dbutils:
    """A stand-in for `dbutils` without arguments or secrets, for functions that take it."""
    from jobrota.stand_ins import Dbutils

    return Dbutils()


@pytest.fixture
def jobrota_display() -> Display:
    """A stand-in for `display`, which records what is shown."""
    from jobrota.stand_ins import Display

    return Display()


class NotebookRunner:
    """Runs notebooks with stand-ins."""

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        widgets: Mapping[str, str] | None = None,
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        variables: Mapping[str, Any] | None = None,
    ) -> NotebookRun:
        """Runs the notebook in this process, from top to bottom.

        Args:
            path: An `.ipynb` file, or the Python source that Databricks keeps in Git.
            widgets: Arguments of the notebook, by the name of their widget.
            secrets: The secrets of `dbutils.secrets`, as `{scope: {key: value}}`.
            variables: More global names, such as `spark`.

        Returns:
            What the notebook showed, its variables, and its exit value.

        Raises:
            Exception: Whatever a cell raises. The traceback names the notebook, the cell and the line.
        """
        from jobrota.notebook_run import run_notebook
        from jobrota.stand_ins import Dbutils

        return run_notebook(path, dbutils=Dbutils(widgets=widgets, secrets=secrets), variables=variables)


@pytest.fixture
def jobrota_notebook(jobrota_unconfigured: None) -> NotebookRunner:
    """Runs a notebook: `jobrota_notebook("job.ipynb", widgets={"study": "A"})`."""
    return NotebookRunner()
