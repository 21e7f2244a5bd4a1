"""Many processes on one table."""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jobrota

from .common import CONTEXT, NOTIFICATIONS, Deltalake, Result, Scale, logged_before, times

LOGGING = 8
ACKNOWLEDGING = 2


def child(work: Callable[..., dict[str, Any]], start: Any, report: Path, arguments: tuple[Any, ...]) -> None:
    """Runs `work(ready, ...)` in a process of its own; what it gives back, or its error, goes to `report`."""

    def ready() -> None:
        start.wait()

    try:
        outcome = work(ready, *arguments)
    except Exception:
        start.abort()
        outcome = {"crash": traceback.format_exc()}
    report.write_text(json.dumps(outcome))


def together(folder: Path, works: list[tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]]) -> list[dict[str, Any]]:
    """Runs all at once, each in a process; every one starts when all are ready."""
    start = CONTEXT.Barrier(len(works))
    reports = [folder / f"report-{number}.json" for number in range(len(works))]
    children = [
        CONTEXT.Process(target=child, args=(work, start, report, arguments))
        for (work, arguments), report in zip(works, reports, strict=True)
    ]
    for process in children:
        process.start()
    for process in children:
        process.join()
    outcomes = [json.loads(report.read_text()) for report in reports]
    crashes = [outcome["crash"] for outcome in outcomes if "crash" in outcome]
    if crashes:
        # The others only found that the start was called off.
        raise RuntimeError(min(crashes, key=lambda crash: "BrokenBarrierError" in crash))
    return outcomes


def log_ours(ready: Callable[[], None], root: str, name: str, seconds: float) -> dict[str, Any]:
    """Logs single rows; every error that reaches the caller is counted."""
    ledger = jobrota.JobLedger(root)
    logged, errors = 0, []
    ready()
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        try:
            ledger.log_job_completion("bench.sas", f"{name}.{logged}", "SUCCESS")
            logged += 1
        except jobrota.JobrotaError as error:
            errors.append(str(error))
    return {"name": name, "logged": logged, "errors": errors, "seconds": spent}


def log_theirs(ready: Callable[[], None], path: str, name: str, seconds: float) -> dict[str, Any]:
    """The same with write_deltalake: a call that fails is an error, and is made again."""
    table = Deltalake(Path(path))
    table.append()
    logged, errors = 0, []
    ready()
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        try:
            table.append()
            logged += 1
        except Exception as error:
            errors.append(str(error))
    return {"name": name, "logged": logged, "errors": errors, "seconds": spent}


def processes(folder: Path, scale: Scale) -> Iterator[Result]:
    """Eight processes log single rows."""
    logged_before(jobrota.JobLedger(folder / "ours"), 1)
    Deltalake(folder / "theirs", partitioned=True)
    rates, errors = [], []
    for name, work in (("ours", log_ours), ("theirs", log_theirs)):
        reports = folder / f"reports-{name}"
        reports.mkdir()
        seconds = scale.seconds * 2
        outcomes = together(reports, [(work, (str(folder / name), f"p{number}", seconds)) for number in range(LOGGING)])
        rates.append(sum(outcome["logged"] for outcome in outcomes) / seconds)
        errors.append(sum(len(outcome["errors"]) for outcome in outcomes))
    mine, other = rates
    ratio = mine / max(other, 0.001)
    yield Result(
        f"{LOGGING} processes, single rows, one table, against write_deltalake",
        f"{mine:,.0f} rows/s, {errors[0]} errors",
        f"{other:,.0f} rows/s, {errors[1]} errors",
        times(ratio),
        "≥ 20 times, 0 errors",
        ratio >= 20 and errors[0] == 0,
    )


def acknowledge(ready: Callable[[], None], root: str, name: str, seconds: float) -> dict[str, Any]:
    """Acknowledges what is pending, and remembers which rows."""
    ledger = jobrota.JobLedger(root)
    given: set[str] = set()
    acknowledged, errors = 0, []
    ready()
    begun = time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        try:
            pending = ledger.pending_notifications(limit=500)
            acknowledged += ledger.acknowledge(pending)
            given.update(pending["job_id"].to_pylist())
        except jobrota.JobrotaError as error:
            errors.append(str(error))
    return {"name": name, "acknowledged": acknowledged, "given": sorted(given), "errors": errors, "seconds": spent}


def optimize(ready: Callable[[], None], root: str, scratch: str, seconds: float) -> dict[str, Any]:
    """Compacts, with each engine in turn. Spark and deltalake may lose a race: that is their affair."""
    import deltalake

    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
    import spark_session

    path = str(Path(root) / NOTIFICATIONS)
    engines: dict[str, Callable[[], object]] = {
        "jobrota": jobrota.JobLedger(root).maintain,
        "deltalake": lambda: deltalake.DeltaTable(path).optimize.compact(),
    }
    if spark_session.missing() is None:
        session = spark_session.start(Path(scratch), short_lived=False)
        session.sql(f"SELECT COUNT(*) FROM delta.`{path}`").collect()
        engines["Spark"] = lambda: session.sql(f"OPTIMIZE delta.`{path}`").collect()
    done: Counter[str] = Counter()
    lost: Counter[str] = Counter()
    errors = []
    ready()
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for name, work in engines.items():
            try:
                work()
                done[name] += 1
            except Exception as error:
                if name == "jobrota":
                    errors.append(str(error))
                lost[name] += 1
    return {"done": done, "lost": lost, "errors": errors}


def mixed(folder: Path, scale: Scale) -> Iterator[Result]:
    """Eight log, two acknowledge, one compacts, and then every row is looked for."""
    root = str(folder / "ours")
    ledger = jobrota.JobLedger(root)
    ledger.log_job_completion("bench.sas", "first", "SUCCESS")
    seconds = scale.mixed_seconds
    works: list[tuple[Callable[..., dict[str, Any]], tuple[Any, ...]]] = [
        (log_ours, (root, f"p{number}", seconds)) for number in range(LOGGING)
    ]
    works += [(acknowledge, (root, f"a{number}", seconds)) for number in range(ACKNOWLEDGING)]
    works.append((optimize, (root, str(folder / "scratch"), seconds)))
    outcomes = together(folder, works)
    loggers, others, optimizer = outcomes[:LOGGING], outcomes[LOGGING:-1], outcomes[-1]
    expected = {"first"}
    for outcome in loggers:
        expected.update(f"{outcome['name']}.{number}" for number in range(outcome["logged"]))
    table = jobrota.JobLedger(root).notifications()
    jobs, flags = table["job_id"].to_pylist(), table["autosys_update_flag"].to_pylist()
    copies = Counter(jobs)
    lost = len(expected - copies.keys())
    doubled = sum(count - 1 for count in copies.values())
    is_set = dict(zip(jobs, flags, strict=True))
    undone = sum(is_set.get(job) != "YES" for outcome in others for job in outcome["given"])
    errors = [error for outcome in outcomes for error in outcome["errors"]]
    for error in sorted(set(errors))[:5]:
        print(f"mixed: an error reached a caller: {error}", file=sys.stderr)
    logged = (len(expected) - 1) / seconds
    acknowledged = sum(outcome["acknowledged"] for outcome in others) / seconds
    engines = ", ".join(
        f"{name} {optimizer['done'].get(name, 0)} ({optimizer['lost'].get(name, 0)} lost)"
        for name in sorted({*optimizer["done"], *optimizer["lost"]})
    )
    yield Result(
        f"{LOGGING} processes log, {ACKNOWLEDGING} acknowledge, 1 runs OPTIMIZE, {seconds:,.0f} s",
        f"{logged:,.0f} rows/s logged, {acknowledged:,.0f} rows/s acknowledged",
        f"OPTIMIZE: {engines}",
        f"{len(errors)} errors, {lost} lost, {doubled} doubled, {undone} pending again",
        "0 errors, 0 lost, 0 doubled",
        not errors and lost == 0 and doubled == 0 and undone == 0,
    )
