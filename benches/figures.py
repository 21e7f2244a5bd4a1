"""Prints the project's figures, all measured in this run: `make bench`.

Times depend on the machine: compare them within one run, and quote the ratios.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

import jobrota


def timings(work: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each of `runs` calls, after one call that is not counted."""
    work()
    measured = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        measured.append((time.perf_counter() - start) * 1_000)
    return measured


def import_time() -> list[float]:
    """Milliseconds that `import jobrota` takes in a new interpreter, without the interpreter's own start."""
    code = "import time; s = time.perf_counter(); import jobrota; print((time.perf_counter() - s) * 1000)"
    runs = [subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True) for _ in range(7)]
    return [float(run.stdout) for run in runs]


def figures(folder: Path) -> list[tuple[str, list[float]]]:
    """Each figure's name and its samples in milliseconds."""
    ledger = jobrota.JobLedger(folder / "ledger")
    rows: list[tuple[str, list[float]]] = [("import jobrota", import_time())]

    def log() -> None:
        ledger.log_job_completion("bench.sas", "BENCH", "SUCCESS")

    rows.append(("log one row, durable, first 50 commits", timings(log, 50)))
    timings(log, 300)
    rows.append(("log one row, durable, after 350 commits", timings(log, 50)))
    rows.append(("read 402 pending rows", timings(ledger.pending_notifications, 5)))
    pending = ledger.pending_notifications()
    start = time.perf_counter()
    acknowledged = ledger.acknowledge(pending)
    rows.append((f"acknowledge {acknowledged} rows, once", [(time.perf_counter() - start) * 1_000]))

    def answers(vm: str) -> tuple[str, str]:
        return "127.0.0.1", "nic"

    names = [f"vm{number}" for number in range(1, 6)]
    process = jobrota.RoundRobinSelector(names, cursor="process", probe=answers, health_ttl=60)
    shared = jobrota.RoundRobinSelector(names, cursor=folder / "cursor", probe=answers, health_ttl=60)
    timings(process.select, len(names))
    timings(shared.select, len(names))
    rows.append(("select, in-process cursor, health remembered", timings(process.select, 500)))
    rows.append(("select, shared cursor, health remembered", timings(shared.select, 200)))
    return rows


def main() -> None:
    """Measures and prints."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        table = Table(title="Figures (milliseconds)")
        for heading in ("what", "p50", "p95", "max"):
            table.add_column(heading, justify="left" if heading == "what" else "right")
        for name, samples in figures(Path(folder)):
            ordered = sorted(samples)
            p95 = ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))]
            table.add_row(name, f"{statistics.median(ordered):.3f}", f"{p95:.3f}", f"{ordered[-1]:.3f}")
        console.print(table)
    rows = jobrota.sandbox_calibration()
    table = Table(title="The sandbox's host model against the recorded run (virtual seconds)")
    for heading in ("arm", "measure", "recorded", "sandbox", "difference"):
        table.add_column(heading, justify="left" if heading in ("arm", "measure") else "right")
    for row in rows:
        percent = row["error_percent"]
        table.add_row(
            row["arm"],
            row["measure"],
            f"{row['recorded']:.1f}",
            f"{row['sandbox']:.1f}",
            "" if percent is None else f"{percent:+.1f} %",
        )
    console.print(table)


if __name__ == "__main__":
    main()
