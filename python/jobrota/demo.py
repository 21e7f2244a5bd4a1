"""The demo: all four parts, on a recorded workload, against the sandbox. Each printed number is measured in the run."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timezone
from itertools import zip_longest
from pathlib import Path
from typing import Any

from jobrota._native import AutosysUpdater, DeliveryReport, JobLedger, RoundRobinSelector, Sandbox, ViyaComparisonRunner
from jobrota.autosys import SendEvent
from jobrota.commands.tables import print_table
from jobrota.errors import InvalidInputError

__all__ = ["run_demo"]

REFUSED_AT_FIRST = (
    "cm_pooled.sequential",
    "ae_pooled.sequential",
    "cm_pooled.async",
    "ae_pooled.async",
    "co_pooled.async",
)
"""AutoSys jobs whose first event the sandbox refuses, as AutoSys does while it restarts."""

_ARMS = ("sequential", "async")
_RowKey = tuple[str, str, str, datetime]


def run_demo(
    *, speed: float = 150.0, ledger: str | None = None, results_dir: str = "results", jobs: int | None = None
) -> dict[str, Any]:
    """Runs the four parts one after the other, and prints the results.

    Args:
        speed: Sandbox seconds per real second.
        ledger: Directory for the ledger's tables; None creates a new one below `results_dir`.
        results_dir: Directory of the result JSON.
        jobs: Run only this many of the 54 jobs.

    Returns:
        Whether each promise of the demo was kept in this run, and the paths of the result and of the ledger.

    Raises:
        JobrotaError: A part failed.
    """
    started = time.monotonic()
    stamp = datetime.now(timezone.utc).strftime("%Y%m%d_%H%M%S")
    root = Path(ledger) if ledger else Path(results_dir) / f"demo-ledger_{stamp}"
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise InvalidInputError(f"{root} is not empty; the demo counts the rows of its ledger, so name a new directory")
    checks: dict[str, bool] = {}

    with Sandbox(vms=4, vms_down=1, speed=speed, refuse_first=REFUSED_AT_FIRST) as sandbox:
        print(
            "jobrota demo: everything below runs against the sandbox, local stand-ins for SAS Viya "
            f"({sandbox.viya_url}), AutoSys and four VMs. Nothing leaves this machine. A recorded run is replayed "
            f"{speed:g} times as fast: the durations of jobs are in the sandbox's seconds."
        )
        runner = ViyaComparisonRunner(
            sandbox.viya_url,
            tokens=sandbox.tokens,
            jobs=sandbox.jobs,
            mode="all",
            limit_jobs=jobs,
            results_dir=results_dir,
        )
        names = _job_names(sandbox.jobs, jobs)

        _headline(1, f"Select a VM for each of {2 * len(names)} tasks ({len(names)} jobs, two arms)")
        selector = RoundRobinSelector(sandbox.inventory, cursor=root, probe=sandbox.probe)
        skipped: Counter[str] = Counter()
        for _ in range(2 * len(names)):
            skipped.update(selector.select().skipped.keys())
        print(f"inventory {', '.join(selector.inventory.names)}; did not answer: {', '.join(skipped) or 'none'}")

        _headline(2, "Run the jobs on SAS Viya, one after the other and all at once")
        comparison = runner.run(progress=True)
        result = comparison.to_dict()

        _headline(3, "Log each execution and notification")
        book = JobLedger(root)
        before = time.monotonic()
        for arm in _ARMS:
            for job in result[f"{arm}_execution"]["jobs"]:
                row = (f"{job['name']}.sas", f"{job['name']}.{arm}", _ledger_status(job))
                book.log_job_execution(*row)
                book.log_job_completion(*row)
        logged = book.summary()
        rows = logged.executions["rows"] + logged.notifications["rows"]
        print(f"{rows} rows, each durable when its call returned, in {time.monotonic() - before:.2f} real seconds")

        _headline(4, "Deliver to AutoSys, twice")
        updater = AutosysUpdater(book, SendEvent(program=sandbox.sendevent))
        everything = _pending(book)
        first = updater.run()
        left_over, delivered_first = _pending(book), _delivered(book)
        unsettled = book.pending_executions().num_rows
        second = updater.run()
        delivered_second = _delivered(book) - delivered_first
        events = sandbox.autosys_events()
        print(f"first cycle: {first.delivered} delivered, {first.failed} refused and still pending")
        print(f"second cycle: {second.delivered} delivered: the rows refused before and no others")
        final = book.summary()

    print()
    vm_counts = _print_selections(selector)
    _print_comparison(result)
    _print_deliveries((first, second))
    _print_pending(final)

    tasks = 2 * len(names)
    up = {vm: count for vm, count in vm_counts.items() if vm not in skipped}
    checks["every task got a VM"] = sum(vm_counts.values()) >= tasks
    checks["the VM that is down was never selected, the others equally often"] = (
        (len(skipped) == 1 or (tasks < 4 and not skipped))
        and len(up) == len(vm_counts) == min(tasks, 3)
        and max(up.values()) - min(up.values()) <= 1
    )
    checks["every job completed"] = comparison.failed_jobs == 0
    checks["every execution and notification was logged"] = (
        logged.executions["rows"] == logged.notifications["rows"] == tasks == len(everything)
    )
    checks["the first cycle left exactly the refused rows pending"] = (
        first.failed == len(left_over)
        and {row[1] for row in left_over} == {row[1] for row in everything}.intersection(REFUSED_AT_FIRST)
        and everything - left_over == delivered_first
    )
    checks["the second cycle delivered exactly those"] = second.delivered == len(left_over) and (
        delivered_second == left_over
    )
    checks["executions were settled with their notifications"] = unsettled == len(left_over) and (
        final.executions["pending"] == 0 == final.notifications["pending"]
    )
    taken = Counter(event["job"] for event in events)
    checks["AutoSys received each event once"] = taken == Counter(row[1] for row in everything)

    print(f"result  {comparison.path}")
    print(f"ledger  {root.resolve()}")
    for warning in comparison.warnings:
        print(f"warning {warning.code}: {warning.text}")
    broken = [text for text, held in checks.items() if not held]
    for text in broken:
        print(f"did not hold: {text}")
    seconds = time.monotonic() - started
    print(f"{len(checks) - len(broken)} of {len(checks)} promises checked and kept, {seconds:.1f} real seconds")
    return {"promises": checks, "result": comparison.path, "ledger": root.resolve()}


def _headline(number: int, text: str) -> None:
    print(f"\n{number}. {text}")


def _job_names(path: Path, limit: int | None) -> list[str]:
    """Names of the enabled jobs of a configuration file."""
    import json

    config = json.loads(path.read_text(encoding="utf-8"))
    entries = config["jobs"] if isinstance(config, dict) else config
    names = [entry["name"] for entry in entries if entry.get("enabled", True)]
    return names[:limit]


def _ledger_status(job: dict[str, Any]) -> str:
    return "SUCCESS" if job["status"] == "completed" else "FAILURE"


def _pending(ledger: JobLedger) -> set[_RowKey]:
    table = ledger.pending_notifications()
    columns = [table[name].to_pylist() for name in ("file_name", "job_id", "status", "notification_timestamp")]
    return set(zip(*columns, strict=True))


def _delivered(ledger: JobLedger) -> set[_RowKey]:
    table = ledger.deliveries()
    columns = [table[name].to_pylist() for name in ("file_name", "job_id", "status", "row_timestamp", "outcome")]
    return {row[:4] for row in zip(*columns, strict=True) if row[4] == "delivered"}


def _print_titled(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    print(title)
    print_table(columns, rows)
    print()


def _print_selections(selector: RoundRobinSelector) -> dict[str, int]:
    distribution = selector.distribution()
    columns = [distribution[name].to_pylist() for name in ("vm", "selections", "share")]
    turns = list(zip(*columns, strict=True))
    rows = [(vm, selections, f"{share:.1%}") for vm, selections, share in turns]
    _print_titled("Selections per VM", ("VM", "selections", "share"), rows)
    return {vm: selections for vm, selections, _ in turns if selections}


def _print_comparison(result: dict[str, Any]) -> None:
    arms = [result[f"{arm}_execution"] for arm in _ARMS]
    saved = result["comparison"]
    rows = [
        ("compute context", *(arm["context_name"] for arm in arms)),
        ("jobs done / failed", *(f"{arm['successful_jobs']} / {arm['failed_jobs']}" for arm in arms)),
        ("total duration", *(f"{arm['total_duration']:,.1f} s" for arm in arms)),
        ("median wait in queue", *(_median_wait(arm) for arm in arms)),
    ]
    hosts = zip_longest(*(_hosts(arm) for arm in arms), fillvalue="")
    rows += [("" if number else "jobs per host", *pair) for number, pair in enumerate(hosts)]
    rows += [
        ("time saved", "", f"{saved['time_saved']:,.1f} s"),
        ("efficiency gain", "", f"{saved['efficiency_gain']:.1f} %"),
    ]
    _print_titled("Comparison (sandbox seconds)", ("", *_ARMS), rows)


def _orchestrator(job: dict[str, Any]) -> dict[str, Any]:
    return (job.get("metrics") or {}).get("orchestrator_data") or {}


def _median_wait(arm: dict[str, Any]) -> str:
    waits = [data["queue_wait_seconds"] for job in arm["jobs"] if (data := _orchestrator(job))]
    return f"{statistics.median(waits):,.0f} s" if waits else "unknown"


def _hosts(arm: dict[str, Any]) -> list[str]:
    hosts = Counter(_orchestrator(job).get("execution_host") or "unknown" for job in arm["jobs"])
    return [f"{host}: {count}" for host, count in sorted(hosts.items())]


def _print_deliveries(cycles: tuple[DeliveryReport, ...]) -> None:
    outcomes = ("delivered", "failed", "parked", "unknown")
    rows = [(outcome, *(getattr(cycle, outcome) for cycle in cycles)) for outcome in outcomes]
    rows.append(("executions settled too", *(cycle.settled for cycle in cycles)))
    _print_titled("Deliveries by outcome", ("outcome", "first cycle", "second cycle"), rows)


def _print_pending(summary: Any) -> None:
    tables = (("autosys_job_log", summary.executions), ("job_notifications", summary.notifications))
    keys = ("rows", "acknowledged", "pending")
    rows = [(name, *(counts[key] for key in keys)) for name, counts in tables]
    _print_titled("Ledger at the end", ("table", *keys), rows)
