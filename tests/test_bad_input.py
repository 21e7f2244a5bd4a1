"""Bad input gets a clear error and loses nothing."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

import jobrota
from support import answers, column, runner

ONE_JOB: dict[str, Any] = {"limit_jobs": 1, "mode": "all"}

# ------------------------------------------------------------------------------------------------------ selection


def test_an_unknown_inventory_format_is_named(tmp_path: Path) -> None:
    path = tmp_path / "vms.xlsx"
    path.write_text("vm1")
    with pytest.raises(jobrota.InvalidInputError, match=r"xlsx(.|\n)*\.?csv"):
        jobrota.Inventory(path)


def test_a_missing_inventory_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(jobrota.JobrotaError, match=r"no-such\.json"):
        jobrota.Inventory(tmp_path / "no-such.json")


@pytest.mark.parametrize(
    "text", ["{", '"vm1"', "[1, 2]", '[{"ip_address": "10.0.0.1"}]', '[{"name": ""}]', '[{"name": "a", "weight": -1}]']
)
def test_a_broken_inventory_file_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "vms.json"
    path.write_text(text)
    with pytest.raises(jobrota.InvalidInputError):
        jobrota.Inventory(path)


def test_duplicate_vm_names_are_refused() -> None:
    with pytest.raises(jobrota.InvalidInputError, match="vm1"):
        jobrota.RoundRobinSelector(["vm1", "vm2", "vm1"], cursor="process", probe=answers)


@pytest.mark.parametrize("empty", [[], {}])
def test_an_empty_inventory_is_refused(empty: Any) -> None:
    with pytest.raises(jobrota.InvalidInputError, match=r"(?i)empty|no vm"):
        jobrota.RoundRobinSelector(empty, cursor="process", probe=answers)


def test_excluding_everything_is_an_error() -> None:
    selector = jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers)
    with pytest.raises(jobrota.JobrotaError):
        selector.select(exclude=["vm1"])


@pytest.mark.parametrize("timeout", [0.0, -1.0, float("nan"), float("inf")])
def test_a_timeout_must_be_positive(timeout: float) -> None:
    with pytest.raises(jobrota.InvalidInputError, match="timeout"):
        jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=answers, timeout=timeout)


@pytest.mark.parametrize("probe", ["tcp", "tcp:0", "tcp:99999", "carrier-pigeon", []])
def test_an_unknown_probe_is_refused(probe: Any) -> None:
    with pytest.raises(jobrota.InvalidInputError):
        jobrota.RoundRobinSelector(["vm1"], cursor="process", probe=probe)


# --------------------------------------------------------------------------------------------------------- ledger


def log_both(ledger: jobrota.JobLedger) -> list[Callable[..., None]]:
    return [ledger.log_job_execution, ledger.log_job_completion]


@pytest.mark.parametrize(
    "row",
    [
        ("", "A", "SUCCESS"),
        ("a.sas", "", "SUCCESS"),
        ("a.sas", "A", ""),
        ("f" * 4097, "A", "SUCCESS"),
        ("ü" * 2049, "A", "SUCCESS"),
        ("a.sas", "j" * 1025, "SUCCESS"),
    ],
)
def test_empty_and_overlong_values_are_refused(ledger: jobrota.JobLedger, row: tuple[str, str, str]) -> None:
    for log in log_both(ledger):
        with pytest.raises(jobrota.InvalidInputError) as caught:
            log(*row)
        assert not caught.value.retryable
    assert not Path(ledger.root).exists()


def test_the_longest_allowed_values_are_kept(ledger: jobrota.JobLedger) -> None:
    for log in log_both(ledger):
        log("f" * 4096, "j" * 1024, "S")
    assert column(ledger.notifications(), "file_name") == ["f" * 4096]


def test_names_that_autosys_refuses_are_logged(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "two words; rm -rf /", "SUCCESS")
    assert column(ledger.pending_notifications(), "job_id") == ["two words; rm -rf /"]


def test_naive_timestamps_are_refused(ledger: jobrota.JobLedger) -> None:
    naive = datetime(2025, 9, 15)
    with pytest.raises(jobrota.InvalidInputError, match=r"(?i)naive|time ?zone"):
        ledger.log_job_execution("a.sas", "A", "SUCCESS", execution_timestamp=naive)
    with pytest.raises(jobrota.InvalidInputError, match=r"(?i)naive|time ?zone"):
        ledger.log_job_completion("a.sas", "A", "SUCCESS", notification_timestamp=naive)
    assert not Path(ledger.root).exists()
    ledger.log_job_execution("a.sas", "A", "SUCCESS")
    with pytest.raises(jobrota.InvalidInputError, match=r"(?i)naive|time ?zone"):
        ledger.executions(since=naive)


def test_a_root_that_is_a_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("precious")
    with pytest.raises(jobrota.JobrotaError, match="file"):
        jobrota.JobLedger(path).log_job_execution("a.sas", "A", "SUCCESS")
    assert path.read_text() == "precious"


@pytest.mark.parametrize("root", ["/dbfs/ledger", "/Volumes/catalog/schema/ledger", "dbfs:/ledger"])
def test_roots_without_atomic_create_are_refused_with_an_alternative(root: str) -> None:
    with pytest.raises(jobrota.JobrotaError, match=r"abfss://|s3://") as caught:
        jobrota.JobLedger(root).log_job_execution("a.sas", "A", "SUCCESS")
    assert not caught.value.retryable


def test_missing_ledger_is_not_created(ledger: jobrota.JobLedger) -> None:
    reads: list[Callable[[], object]] = [
        ledger.fetch_unprocessed_updates,
        ledger.pending_notifications,
        ledger.executions,
        ledger.summary,
        jobrota.AutosysUpdater(ledger, lambda *row: True).run,
    ]
    for read in reads:
        with pytest.raises(jobrota.NotFoundError, match="ledger"):
            read()
    assert not Path(ledger.root).exists()


def test_an_unknown_table_is_refused(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    with pytest.raises(jobrota.InvalidInputError, match="job_notifications"):
        ledger.acknowledge(ledger.pending_notifications(), table="users; DROP TABLE")  # type: ignore[arg-type]


def test_rows_of_another_shape_are_refused(ledger: jobrota.JobLedger) -> None:
    ledger.log_job_completion("a.sas", "A", "SUCCESS")
    with pytest.raises(jobrota.InvalidInputError):
        ledger.acknowledge(ledger.summary().to_dict())  # type: ignore[arg-type]
    with pytest.raises(jobrota.InvalidInputError, match="job_id"):
        ledger.acknowledge(ledger.pending_notifications().select(["file_name"]))
    assert ledger.pending_notifications().num_rows == 1


# -------------------------------------------------------------------------------------------------------- AutoSys


def test_unknown_events_and_transports_are_refused(ledger: jobrota.JobLedger) -> None:
    for mapping in ("DO_SOMETHING", {"SUCCESS": "rm -rf"}, {"SUCCESS": "CHANGE_STATUS NONSENSE"}, {}):
        with pytest.raises(jobrota.InvalidInputError):
            jobrota.AutosysUpdater(ledger, lambda *row: True, mapping=mapping)
    with pytest.raises(jobrota.InvalidInputError, match="transport"):
        jobrota.AutosysUpdater(ledger, "sendevent")  # type: ignore[arg-type]
    with pytest.raises(jobrota.InvalidInputError):
        jobrota.AutosysUpdater(ledger, lambda *row: True, source="both")  # type: ignore[arg-type]


# ----------------------------------------------------------------------------------------------------- comparison


def test_expired_tokens_are_an_authentication_error(sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    tokens = json.loads(sandbox.tokens.read_text())
    tokens |= {"access_token": "hidden-old-access", "expires_at": "2020-01-01T00:00:00"}
    tokens["refresh_token"] = "hidden-old-refresh"
    path = tmp_path / "tokens.json"
    path.write_text(json.dumps(tokens))
    with pytest.raises(jobrota.AuthenticationError) as caught:
        runner(sandbox, **ONE_JOB, tokens=path).run(progress=False)
    assert "hidden-old" not in str(caught.value)


def test_a_missing_token_file_is_named(sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    with pytest.raises(jobrota.JobrotaError, match=r"no-tokens\.json"):
        runner(sandbox, **ONE_JOB, tokens=tmp_path / "no-tokens.json").run(progress=False)


def test_a_configuration_with_no_enabled_job_is_refused(sandbox: jobrota.Sandbox, tmp_path: Path) -> None:
    config = json.loads(sandbox.jobs.read_text())
    for job in config["jobs"]:
        job["enabled"] = False
    path = tmp_path / "jobs.json"
    path.write_text(json.dumps(config))
    with pytest.raises(jobrota.InvalidInputError, match="enabled"):
        runner(sandbox, **ONE_JOB, jobs=path).run(progress=False)


@pytest.mark.parametrize("which", ["sequential_context", "async_context"])
def test_a_context_that_does_not_exist_is_never_replaced(sandbox: jobrota.Sandbox, which: str) -> None:
    with pytest.raises(jobrota.NotFoundError, match="No Such Context"):
        runner(sandbox, **ONE_JOB, **{which: "No Such Context"}).run(progress=False)


def test_an_unreachable_server_is_a_network_error(sandbox: jobrota.Sandbox) -> None:
    with socket.socket() as taken:  # bound and not listening: no server answers
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(jobrota.NetworkError, match=r"127\.0\.0\.1") as caught:
            runner(sandbox, **ONE_JOB, base_url=url).run(progress=False)
    assert caught.value.retryable


def test_a_missing_base_url_names_all_three_ways() -> None:
    with pytest.raises(jobrota.InvalidInputError, match=r"base_url(.|\n)*JOBROTA_BASE_URL(.|\n)*jobrota\.toml"):
        jobrota.ViyaComparisonRunner()


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "some"},
        {"concurrent": 0},
        {"sequential_only": True, "async_only": True},
        {"poll_interval": 0.0},
        {"time_scale": 0},
        {"time_scale": -1.0},
        {"time_scale": float("nan")},
        {"time_scale": 1e7},
    ],
)
def test_options_that_cannot_work_are_refused(sandbox: jobrota.Sandbox, options: dict[str, Any]) -> None:
    with pytest.raises(jobrota.InvalidInputError):
        runner(sandbox, **(ONE_JOB | options)).run(progress=False)


def test_more_vms_down_than_vms_is_refused() -> None:
    with pytest.raises(jobrota.InvalidInputError):
        jobrota.Sandbox(vms=1, vms_down=2)
    with pytest.raises(jobrota.InvalidInputError):
        jobrota.Sandbox(speed=0)
    with pytest.raises(jobrota.InvalidInputError, match="speed"):
        jobrota.Sandbox(speed=1e7)
