"""The bundle in deploy/: Databricks' models accept it, and its jobs run when they are called as it calls them."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import jobrota
from bundle import FOLDER, Bundle, BundleError, parameters
from jobrota.cli import build_parser
from jobrota.stand_ins import Dbutils
from support import column

TARGETS = ("dev", "prod", "prod_cluster")
GIVEN = {
    "ledger": "abfss://c@a.dfs.core.windows.net/ledger",
    "catalog": "main",
    "warehouse_id": "0123456789abcdef",
    "notify_email": "operations@example.com",
    "viya_url": "https://viya.example.com",
    "transport": "sendevent",
}


def called_by_databricks(package: str, entry_point: str, given: list[str]) -> None:
    """Calls an entry point as a wheel task does: by its name, without arguments, in a Python that goes on."""
    before = sys.argv
    sys.argv = [package, *given]
    try:
        next(entry for entry in metadata.distribution(package).entry_points if entry.name == entry_point).load()()
    finally:
        sys.argv = before


Run = Callable[..., None]


@pytest.fixture
def run_job(tmp_path: Path) -> Run:
    """Runs the task of a job of the bundle, with the parameters that the bundle gives it."""

    def run_job(name: str, **variables: Any) -> None:
        resources = Bundle().resolved("prod", GIVEN | variables, file_path=str(tmp_path / "files"))
        (task,) = resources["jobs"][name]["tasks"]
        wheel = task["python_wheel_task"]
        # The only place of Databricks that this machine does not have.
        given = [text.replace("=/Volumes/", f"={tmp_path}/Volumes/") for text in wheel["parameters"]]
        called_by_databricks(wheel["package_name"], wheel["entry_point"], given)

    return run_job


@pytest.fixture
def sendevent(jobrota_sandbox: jobrota.Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sandbox's program is on the PATH, as AutoSys's is on a cluster with its client."""
    monkeypatch.setenv("PATH", f"{jobrota_sandbox.sendevent.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.fixture
def scope(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], str]:
    """Makes a secret scope, which `databricks.sdk` finds as on a cluster."""

    def make(secrets: dict[str, str]) -> str:
        runtime = ModuleType("databricks.sdk.runtime")
        runtime.dbutils = Dbutils(secrets={"team": secrets})  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "databricks.sdk", ModuleType("databricks.sdk"))
        monkeypatch.setitem(sys.modules, "databricks.sdk.runtime", runtime)
        return "team"

    return make


@pytest.mark.parametrize("target", TARGETS)
def test_databricks_accepts_each_resource_of_each_target(target: str) -> None:
    resources = Bundle().resolved(target, GIVEN)
    jobs = resources["jobs"]
    assert sorted(jobs) == ["compare", "deliver", "deliver_continuously", "maintain"]
    assert jobs["deliver"]["schedule"]["quartz_cron_expression"] == "0 0/15 * * * ?"
    assert [job["max_concurrent_runs"] for job in jobs.values()] == [1] * 4
    kinds = {key for job in jobs.values() for key in job if key in ("environments", "job_clusters")}
    assert kinds == {"job_clusters" if target == "prod_cluster" else "environments"}


def test_there_are_no_other_targets() -> None:
    assert tuple(Bundle().root["targets"]) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_the_command_accepts_the_parameters_of_each_task(target: str) -> None:
    for job in Bundle().resolved(target, GIVEN)["jobs"].values():
        scope, *command = parameters(job)
        assert scope == "--secret-scope="
        assert callable(build_parser().parse_args(command).run)


def test_only_one_of_the_two_deliveries_is_on() -> None:
    jobs = Bundle().resolved("prod", GIVEN)["jobs"]
    assert jobs["deliver"]["schedule"]["pause_status"] == "UNPAUSED"
    assert jobs["deliver_continuously"]["continuous"]["pause_status"] == "PAUSED"


def test_development_runs_nothing_by_itself_and_shares_no_volume() -> None:
    def statuses(value: Any) -> list[str]:
        if isinstance(value, list):
            return [status for each in value for status in statuses(each)]
        if not isinstance(value, dict):
            return []
        own = [value["pause_status"]] if "pause_status" in value else []
        return own + statuses(list(value.values()))

    resources = Bundle().resolved("dev", GIVEN)
    assert statuses(resources) == ["PAUSED"] * 7  # four jobs and three alerts
    assert statuses(Bundle().resolved("prod", GIVEN)).count("PAUSED") == 1
    (volume,) = resources["volumes"].values()
    assert volume["name"] == "jobrota_results_dev_ada"
    assert f"--results-dir=/Volumes/main/jobrota/{volume['name']}" in parameters(resources["jobs"]["compare"])


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("resources/deliver.job.yml", "entry_point:", "entrypoint:", "entrypoint"),
        ("resources/deliver.job.yml", "            package_name: jobrota\n", "", "package_name"),
        ("resources/deliver.job.yml", "enabled: true", "enabled: sometimes", "sometimes"),
        ("resources/deliver.job.yml", "RUN_DURATION_SECONDS", "RUN_DURATION", "RUN_DURATION"),
        ("resources/deliver.job.yml", "${var.delivery}", "${var.deliveries}", "deliveries"),
        ("resources/maintain.job.yml", "${var.ledger}", "${bundle.ledger}", "bundle.ledger"),
        ("resources/maintain.job.yml", "  jobs:", "  job:", "job"),
        ("databricks.yml", "include:", "includes:", "includes"),
        ("databricks.yml", "  - resources/*.yml", "  - resource/*.yml", "resource/"),
        ("databricks.yml", "mode: development", "mode: develop", "develop"),
        ("databricks.yml", "environment_key: jobrota\n        deliver_c", "environment_key: x\n        deliver_c", "x"),
        ("databricks.yml", "- whl: ./dist", "- wheel: ./dist", "wheel"),
        ("databricks.yml", "    type: complex\n    default: []", "    default: []", "failure_destinations"),
        ("databricks.yml", "viya_url:", "viya_uri:", "viya_ur"),
        ("databricks.yml", "scheduled_alerts: PAUSED", "scheduled_alarms: PAUSED", "scheduled_alarms"),
    ],
)  # fmt: skip
def test_a_wrong_bundle_is_refused(file: str, old: str, new: str, says: str, tmp_path: Path) -> None:
    folder = tmp_path / "deploy"
    shutil.copytree(FOLDER, folder, ignore=shutil.ignore_patterns("dist"))
    text = (folder / file).read_text(encoding="utf-8")
    assert old in text
    (folder / file).write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(BundleError, match=says):
        Bundle(folder).merged("dev"), Bundle(folder).merged("prod_cluster")


def test_a_variable_without_a_value_is_refused() -> None:
    for missing in ("ledger", "transport"):
        with pytest.raises(BundleError, match=missing):
            Bundle().resolved("prod", {name: value for name, value in GIVEN.items() if name != missing})


@pytest.mark.usefixtures("sendevent")
@pytest.mark.parametrize("jobrota_sandbox_options", [{"refuse_first": ["STUDY.AE"]}])
def test_a_scheduled_cycle_delivers_what_the_one_before_did_not(
    run_job: Run, ledger: jobrota.JobLedger, jobrota_sandbox: jobrota.Sandbox, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
    ledger.log_job_completion("dm.sas", "STUDY.DM", "SUCCESS")
    with pytest.raises(SystemExit) as failed:
        run_job("deliver", ledger=ledger.root)
    assert failed.value.code == 1
    assert capsys.readouterr().out.startswith("1 delivered, 1 failed")
    run_job("deliver", ledger=ledger.root)
    assert capsys.readouterr().out == "1 delivered, 0 failed, 0 parked, 0 unknown, 0 pending\n"
    assert [event["job"] for event in jobrota_sandbox.autosys_events()] == ["STUDY.DM", "STUDY.AE"]


@pytest.mark.usefixtures("sendevent")
def test_a_cycle_with_a_refused_row_is_a_failed_run(run_job: Run, ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("bad.sas", "NOT A NAME", "SUCCESS")
    with pytest.raises(SystemExit) as failed:
        run_job("deliver", ledger=ledger.root)
    assert failed.value.code == 1


def test_a_run_that_cannot_work_is_a_failed_run(run_job: Run, tmp_path: Path) -> None:
    for job in ("deliver", "maintain"):
        with pytest.raises(SystemExit) as failed:
            run_job(job, ledger=str(tmp_path / "nothing"))
        assert failed.value.code == 1


@pytest.mark.usefixtures("sendevent")
def test_a_cycle_beside_another_is_no_failed_run(
    run_job: Run, ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
    seen: list[object] = []

    def send(file_name: str, job_id: str, status: str) -> bool:
        run_job("deliver", ledger=ledger.root)
        seen.append(capsys.readouterr().err)
        with pytest.raises(SystemExit) as failed:  # an action that was not done is a failure
            called_by_databricks(
                "jobrota", "jobrota-scheduled", ["autosys", "redrive", "--all", "--ledger", ledger.root]
            )
        seen.append(failed.value.code)
        return True

    assert jobrota.AutosysUpdater(ledger, send).run().delivered == 1
    message, code = seen
    assert "nothing was done" in str(message)
    assert code == 3


def test_nightly_maintenance_runs(run_job: Run, ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(3):
        ledger.log_job_completion("ae.sas", f"STUDY.{number}", "SUCCESS")
    run_job("maintain", ledger=ledger.root)
    assert "job_notifications: 3 files, now 1" in capsys.readouterr().out


COMPARED = {"autosys": False, "vms": 0, "vms_down": 0, "speed": 2000, "definitions": {"a_pooled": 20, "b_pooled": 30}}


@pytest.mark.parametrize("jobrota_sandbox_options", [COMPARED])
def test_the_weekly_comparison_runs(
    run_job: Run,
    jobrota_sandbox: jobrota.Sandbox,
    scope: Callable[[dict[str, str]], str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "files").mkdir()
    shutil.copy(jobrota_sandbox.jobs, tmp_path / "files" / "job_configs.json")
    root = str(tmp_path / "ledger")
    run_job(
        "compare",
        ledger=root,
        viya_url=jobrota_sandbox.viya_url,
        secret_scope=scope({"sas-client-id": "sandbox.client", "sas-client-secret": "sandbox-secret", "path": "/evil"}),
    )
    history = jobrota.comparison_history(root)
    assert len(column(history, "arm")) == 3
    shown = capsys.readouterr()
    assert "environment variables from the secret scope team: SAS_CLIENT_ID, SAS_CLIENT_SECRET\n" in shown.err
    assert "sandbox-secret" not in shown.out + shown.err
    assert "SAS_CLIENT_SECRET" not in os.environ, "the next task of this Python does not have it"
    assert list((tmp_path / "Volumes" / "main" / "jobrota" / "jobrota_results").glob("*.json"))


def test_a_scope_replaces_variables_only_while_the_command_runs(
    scope: Callable[[dict[str, str]], str],
    ledger: jobrota.JobLedger,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("JOBROTA_LEDGER", "/not/there")
    ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
    name = scope({"jobrota-ledger": ledger.root})
    called_by_databricks("jobrota", "jobrota-scheduled", [f"--secret-scope={name}", "ledger", "status"])
    assert f"ledger {ledger.root}" in capsys.readouterr().out
    assert os.environ["JOBROTA_LEDGER"] == "/not/there"


def test_a_scope_that_cannot_be_used_is_explained(scope: Callable[[dict[str, str]], str]) -> None:
    name = scope({"password": "hidden"})
    for given, kind, says in (
        ("other", jobrota.AuthenticationError, "grant READ"),
        (name, jobrota.InvalidInputError, "azure-client-secret"),
    ):
        with pytest.raises(kind, match=says) as refused:
            called_by_databricks("jobrota", "jobrota-scheduled", [f"--secret-scope={given}", "ledger", "status"])
        assert "hidden" not in str(refused.value)


def test_a_scope_sets_secrets_and_nothing_that_decides_what_runs(
    scope: Callable[[dict[str, str]], str], ledger: jobrota.JobLedger, capsys: pytest.CaptureFixture[str]
) -> None:
    ledger.log_job_completion("ae.sas", "STUDY.AE", "SUCCESS")
    deliver = ["autosys", "deliver", "--ledger", ledger.root, "--transport", "sendevent", "--dry-run"]
    secrets = {"azure-": "a", "azure-x=y": "a", "jobrota-transport": "/evil", "jobrota-config": "/evil", "sas-x": "a"}
    before = dict(os.environ)
    called_by_databricks("jobrota", "jobrota-scheduled", [f"--secret-scope={scope(secrets)}", *deliver])
    said = capsys.readouterr().err
    assert "environment variables from the secret scope team: SAS_X\n" in said
    assert "not used from the secret scope team: JOBROTA_CONFIG, JOBROTA_TRANSPORT" in said
    name = scope({"sas-x": "a", "azure-key": "hidden\0"})
    with pytest.raises(jobrota.InvalidInputError, match="azure-key") as refused:
        called_by_databricks("jobrota", "jobrota-scheduled", [f"--secret-scope={name}", *deliver])
    assert "hidden" not in str(refused.value)
    assert dict(os.environ) == before


def test_without_databricks_a_scope_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "databricks.sdk", None)
    with pytest.raises(jobrota.MissingPackageError, match="leave --secret-scope out"):
        called_by_databricks("jobrota", "jobrota-scheduled", ["--secret-scope=team", "ledger", "status"])


def test_wrong_parameters_are_a_failed_run_and_help_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    called_by_databricks("jobrota", "jobrota-scheduled", ["--help"])
    assert "--secret-scope" in capsys.readouterr().out
    called_by_databricks("jobrota", "jobrota-scheduled", ["ledger", "status", "--help"])
    for given in ([], ["--secret", "team"], ["nonsense"]):
        with pytest.raises(SystemExit) as failed:
            called_by_databricks("jobrota", "jobrota-scheduled", given)
        assert failed.value.code == 2
