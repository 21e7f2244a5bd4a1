"""Prints the figures of comparisons on SAS Viya, all measured in this run: `make bench`.

The sandbox is in a process of its own, so that time and memory are the runner's alone.
"""

from __future__ import annotations

import heapq
import json
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import requests

from ledger_rows.common import QUICK, Result, Scale
from report import measure

FIXED = "SAS Job Execution compute context"
SERVER = """
import json, sys, jobrota
with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, **json.loads(sys.stdin.readline())) as sandbox:
    print(json.dumps([sandbox.viya_url, str(sandbox.tokens), str(sandbox.jobs)]), flush=True)
    for line in sys.stdin:
        print(json.dumps({"requests": sandbox.viya_requests(), "jobs": sandbox.viya_jobs()}), flush=True)
"""
RUN = """
import json, resource, sys, time, jobrota
options = json.loads(sys.argv[1])
arms = [jobrota.Arm("window", options.pop("context"), "window", options.pop("concurrent"))]
runner = jobrota.ViyaComparisonRunner(options.pop("base_url"), arms=arms, **options)
before, begun = time.process_time(), time.perf_counter()
result = runner.run(progress=False)
used = {"cpu": time.process_time() - before, "real": time.perf_counter() - begun}
used["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps(used | {"path": str(result.path), "failed": result.failed_jobs}))
"""


class Server:
    """A sandbox in a process of its own."""

    def __init__(self, speed: float, definitions: dict[str, float], **options: Any) -> None:
        """Starts it."""
        given = {"speed": speed, "definitions": definitions, **options}
        pipe = subprocess.PIPE
        self.child = subprocess.Popen([sys.executable, "-c", SERVER], stdin=pipe, stdout=pipe, text=True)
        assert self.child.stdin is not None
        # Thousands of definitions are more than a command line takes.
        self.child.stdin.write(json.dumps(given) + "\n")
        self.child.stdin.flush()
        assert self.child.stdout is not None
        self.url, self.tokens, self.jobs = json.loads(self.child.stdout.readline())
        self.speed = speed

    def seen(self) -> dict[str, Any]:
        """What it was asked, and what it ran."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write("\n")
        self.child.stdin.flush()
        found: dict[str, Any] = json.loads(self.child.stdout.readline())
        return found

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.child.stdin is not None
        self.child.stdin.close()
        self.child.wait()


def hosts(count: int, slots: int, pod_start: float = 0.5) -> dict[str, float]:
    """Hosts on which jobs do not slow each other down."""
    return {
        "fixed_hosts": count, "fixed_slots": slots, "fixed_cores": 2.0 * slots, "fixed_contention": 0, "pool_max": 0,
        "pod_start": pod_start,
    }  # fmt: skip


def jobs(count: int, low: float, high: float, seed: int = 1) -> dict[str, float]:
    """Jobs of random lengths."""
    draw = random.Random(seed)
    return {f"job_{number:05d}": draw.uniform(low, high) for number in range(count)}


def run(server: Server, folder: Path, concurrent: int, **options: Any) -> dict[str, Any]:
    """A run in a process of its own: what it used, and its rows."""
    given = {
        "base_url": server.url, "tokens": server.tokens, "jobs": server.jobs, "results_dir": str(folder),
        "time_scale": server.speed, "context": FIXED, "concurrent": concurrent, **options,
    }  # fmt: skip
    done = subprocess.run([sys.executable, "-c", RUN, json.dumps(given)], capture_output=True, text=True, check=True)
    used: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    document = json.loads(Path(used["path"]).read_text())
    used["rows"] = document["arms"][0]["jobs"]
    used["arm"] = document["analysis"]["arms"][0]
    return used


def makespan(rows: Sequence[dict[str, Any]]) -> float:
    """By the orchestrator: from the first submission to the last end."""
    return max(row["jes_end_s"] for row in rows) - min(row["jes_created_s"] for row in rows)


def schedule(seconds: Sequence[float], slots: int) -> float:
    """Ideal list scheduling: each job begins the moment a slot is free."""
    free = [0.0] * slots
    for length in seconds:
        heapq.heapreplace(free, free[0] + length)
    return max(free)


def packed(folder: Path, scale: Scale) -> Iterator[Result]:
    """A window that keeps 8 hosts of 4 slots busy."""
    count = 300 if scale is QUICK else 1000
    lengths, slots = jobs(count, 20, 40), 32
    with Server(15, lengths, hosts=hosts(8, 4)) as server:
        first = run(server, folder, slots + 16)
        second = run(server, folder, slots + 16, order="longest_first")
    busy = {row["job"]: lengths[row["job"]] + 0.5 for row in first["rows"]}
    ideal = schedule([busy[row["job"]] for row in first["rows"]], slots)
    least = max(sum(busy.values()) / slots, max(busy.values()))
    for name, done, bound, what in (
        ("in submission order", first, ideal, "ideal list scheduling"),
        ("longest first, durations from the run before", second, least, "lower bound"),
    ):
        took = makespan(done["rows"])
        yield Result(
            f"{count:,} jobs on 8 hosts × 4 slots, {name}", f"{took:.1f} s", f"{bound:.1f} s ({what})",
            f"{took / bound:.3f}", "≤ 1.02", took <= 1.02 * bound,
        )  # fmt: skip


def observed(folder: Path, scale: Scale) -> Iterator[Result]:
    """Ends are seen soon, and with few requests, whichever way the server lets us ask."""
    count = 600 if scale is QUICK else 1000
    for name, options in (
        ("the server waits with its answer", {}),
        ("it does not, and lists by filter", {"long_poll": False}),
        ("it does neither", {"long_poll": False, "list_filters": False}),
    ):
        with Server(1, jobs(count, 20, 40), hosts=hosts(40, 16), **options) as server:
            done = run(server, folder / name.replace(" ", "-"), 500)
            asked = sum(server.seen()["requests"].values())
        lag = done["arm"]["observe_lag_s"]
        rate = asked / done["real"]
        yield Result(
            f"seen end − end, 500 in flight: {name}", f"p50 {lag['p50']:.2f} s, p95 {lag['p95']:.2f} s",
            f"{rate:.1f} requests/s", "", "p95 < 1 s, < 50/s", lag["p95"] < 1 and rate < 50,
        )  # fmt: skip


def large(folder: Path, scale: Scale) -> Iterator[Result]:
    """Thousands of jobs in one run."""
    count = 1000 if scale is QUICK else 5000
    with Server(10, jobs(count, 20, 40), hosts=hosts(40, 16)) as server:
        done = run(server, folder, 640)
        names = Counter(job["name"] for job in server.seen()["jobs"])
    size = done["memory"] / 1e6
    whole = len(done["rows"]) == count and done["failed"] == 0 and set(names.values()) == {1}
    yield Result(
        f"{count:,} jobs in one run: memory of the process", f"{size:.0f} MB", "", "", "< 150 MB", whole and size < 150
    )
    yield Result(f"{count:,} jobs in one run: CPU", f"{1000 * done['cpu'] / count:.2f} ms a job", "", "", "", None)


def todays(server: Server, names: Sequence[tuple[str, str]], workers: int) -> tuple[float, list[float], int, float]:
    """What is done today: a pool of threads with requests, each polling its job every 10 s."""
    token = json.loads(Path(server.tokens).read_text())["access_token"]
    session = requests.Session()
    session.headers["Authorization"] = f"Bearer {token}"
    adapter = requests.adapters.HTTPAdapter(pool_maxsize=workers)
    session.mount("http://", adapter)
    asked = 0

    def one(job: tuple[str, str]) -> tuple[str, float]:
        nonlocal asked
        name, definition = job
        body = {
            "name": name, "jobDefinitionUri": f"/jobDefinitions/definitions/{definition}",
            "arguments": {"_contextName": FIXED},
        }  # fmt: skip
        kind = {"Content-Type": "application/vnd.sas.job.execution.job.request+json"}
        made = session.post(f"{server.url}/jobExecution/jobs", data=json.dumps(body), headers=kind, timeout=30).json()
        asked += 1
        begun = time.perf_counter()
        while True:
            time.sleep(10 / server.speed)
            found = session.get(f"{server.url}/jobExecution/jobs/{made['id']}", timeout=30).json()
            asked += 1
            if found["state"] not in ("pending", "running"):
                return made["id"], (time.perf_counter() - begun) * server.speed - found["elapsedTime"] / 1e3

    used, start = time.process_time(), time.perf_counter()
    with ThreadPoolExecutor(workers) as pool:
        lags = [lag for _, lag in pool.map(one, names)]
    return (time.perf_counter() - start) * server.speed, lags, asked, time.process_time() - used


def beside(folder: Path, scale: Scale) -> Iterator[Result]:
    """Ours and today's way, on the same jobs and hosts."""
    count, workers, speed = (100 if scale is QUICK else 300), 32, 5.0
    lengths = jobs(count, 20, 40)
    with Server(speed, lengths, hosts=hosts(8, 4)) as server:
        ours = run(server, folder, workers)
        ours_asked = sum(server.seen()["requests"].values())
    with Server(speed, lengths, hosts=hosts(8, 4)) as server:
        configs = json.loads(Path(server.jobs).read_text())["jobs"]
        _, lags, asked, cpu = todays(server, [(job["name"], job["definition_id"]) for job in configs], workers)
        seen = server.seen()["jobs"]
    theirs = max(job["ended"] for job in seen) - min(job["created"] for job in seen)
    span = makespan(ours["rows"])
    lag = ours["arm"]["observe_lag_s"]
    p95 = statistics.quantiles(lags, n=20)[-1]
    title = f"{count} jobs, {workers} at a time, beside threads with requests: "
    for what, mine, other, unit, digits in [
        ("makespan", span, theirs, " s", 0),
        ("observe lag, p95", lag["p95"], p95, " s", 2),
        ("requests", ours_asked, asked, "", 0),
        ("CPU a job", 1000 * ours["cpu"] / count, 1000 * cpu / count, " ms", 2),
    ]:
        ours_shown, theirs_shown = (f"{value:,.{digits}f}{unit}" for value in (mine, other))
        yield Result(title + what, ours_shown, theirs_shown, f"{other / max(mine, 1e-9):.2f} times", "", None)


def bad_day(folder: Path, scale: Scale) -> Iterator[Result]:
    """5 % of answers are 429 or 503, 2 % of connections break off, tokens are good for 20 s."""
    count = 200 if scale is QUICK else 1000
    options = {"fault_rate": 0.05, "reset_rate": 0.02, "token_lifetime": 20, "seed": 7}
    with Server(1 if scale is not QUICK else 3, jobs(count, 15, 30), hosts=hosts(40, 16), **options) as server:
        done = run(server, folder, 300)
        seen = server.seen()
    names = Counter(job["name"] for job in seen["jobs"])
    twice = sum(number > 1 for number in names.values())
    renewals = seen["requests"].get("POST /SASLogon/oauth/token", 0)
    lost = count - sum(row["state"] == "completed" for row in done["rows"])
    yield Result(
        f"{count:,} jobs on an unreliable server (5 % 429/503, 2 % resets, tokens of 20 s; seed 7)",
        f"{lost} not accounted for, {twice} submitted twice", f"{renewals} renewals", "", "0 and 0",
        lost == 0 and twice == 0,
    )  # fmt: skip


def correlated(folder: Path, scale: Scale) -> Iterator[Result]:
    """One listing for the whole run."""
    count = 1500
    with Server(60, jobs(count, 5, 10), hosts=hosts(50, 30, 0.1)) as server:
        done = run(server, folder, count)
        asked = server.seen()["requests"]["GET /workloadOrchestrator/jobs"]
    exact = sum(row["correlation"] == "exact" for row in done["rows"])
    pages = -(-count // 500)
    yield Result(
        f"correlation of {count:,} jobs", f"{asked} requests, {100 * exact / count:.1f} % exact", f"{pages} pages", "",
        "≤ pages, 100 %", asked <= pages and exact == count,
    )  # fmt: skip


def main() -> int:
    """Measures and prints what the command line asks for."""
    rows = {
        "packed": packed,
        "observed": observed,
        "large": large,
        "beside": beside,
        "bad_day": bad_day,
        "correlated": correlated,
    }
    return measure("Comparison", __doc__, rows, ["jobrota", "requests"])


if __name__ == "__main__":
    sys.exit(main())
