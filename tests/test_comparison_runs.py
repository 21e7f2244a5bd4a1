"""Complete comparisons: arms and rounds, faults of the server, kills, and the requests that the server got."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import jobrota
from jobrota import cli
from support import column, runner

FIXED, SCALING = "SAS Job Execution compute context", "Autoscaling POC Context"
CHILD = Path(__file__).with_name("comparison_child.py")


def definitions(count: int, seconds: float = 20.0) -> dict[str, float]:
    """Jobs of different lengths, each with a name of its own."""
    return {f"job_{number:04d}": seconds * (1 + number % 7 / 7) for number in range(count)}


def sandbox(count: int = 12, **options: Any) -> jobrota.Sandbox:
    options = {"speed": 100, "definitions": definitions(count), **options}
    return jobrota.Sandbox(autosys=False, vms=0, vms_down=0, **options)


def submitted_once(server: jobrota.Sandbox, names: list[str]) -> None:
    """Every name is known to the server exactly once."""
    counts = Counter(job["name"] for job in server.viya_jobs())
    assert {name: counts[name] for name in names} == dict.fromkeys(names, 1)
    assert set(counts.values()) == {1}


def test_three_arms_in_rounds_tell_parallelism_and_context_apart(tmp_path: Path) -> None:
    with sandbox(6, speed=400) as server:
        result = runner(server, results_dir=tmp_path, arms="three_way", mode="window", concurrent=3, repeat=2).run(
            progress=False
        )
        values = result.to_dict()
        assert [arm["name"] for arm in values["arms"]] == ["sequential", "async_regular", "async_autoscaling"]
        assert [gain["kind"] for gain in values["analysis"]["comparisons"]] == ["parallelism", "total", "context"]
        codes = {warning.code for warning in result.warnings}
        assert "single_repeat" in codes
        assert "parallelism_confounded" not in codes
        # The order is reversed: the first arm of one round is the last of the other.
        assert [[entry["order"] for entry in arm["rounds"]] for arm in values["arms"]] == [[1, 3], [2, 2], [3, 1]]
        for key in ("sequential", "async", "async_regular", "async_autoscaling"):
            assert len(values[f"{key}_execution"]["jobs"]) == 12
        assert values["async_execution"]["context_name"] == SCALING
        jobs = result.jobs()
        assert jobs.num_rows == 36
        assert set(column(jobs, "round")) == {1, 2}
        assert set(column(jobs, "correlation")) == {"exact"}
        submitted_once(server, column(jobs, "unique_name"))
        assert jobrota.ComparisonResult.load(str(result.path)).to_dict() == values


@pytest.mark.parametrize("mode", ["window", "batch", "all", "sequential"])
def test_modes_keep_their_concurrency(tmp_path: Path, mode: Any) -> None:
    most = {"window": 4, "batch": 4, "all": 12, "sequential": 1}[mode]
    events: list[dict[str, Any]] = []
    with sandbox() as server:
        arms = [jobrota.Arm("one", FIXED, mode, 4)]
        result = runner(server, results_dir=tmp_path, arms=arms).run(progress=events.append)
    assert result.failed_jobs == 0
    assert max(event["in_flight"] for event in events) == most
    assert events[-1]["done"] == 12


def test_arms_from_a_file_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "arms.yaml"
    path.write_text(f"arms:\n- {{name: few, context: {FIXED}, mode: window, concurrent: 2}}\n"
                    f"- {{name: many, context: {FIXED}, mode: all}}\n")  # fmt: skip
    with sandbox(4, speed=300, fail_jobs=["job_0002"]) as server, pytest.raises(SystemExit) as ended:
        cli.main([
            "compare", "--base-url", server.viya_url, "--tokens", str(server.tokens), "--jobs", str(server.jobs),
            "--results-dir", str(tmp_path), "--arms", str(path), "--repeat", "2",
        ])  # fmt: skip
    # A job failed.
    assert ended.value.code == 1
    out = capsys.readouterr().out
    assert out.splitlines()[-1].startswith("result: ")
    assert "few: " in out
    assert "6 done, 2 failed" in out
    for arm in ("few", "many"):
        for number in (1, 2):
            assert f"  failed: job_0002 of {arm}, round {number}: The job failed." in out
    (log, *_) = tmp_path.glob("*.logs/*.log")
    assert "ERROR" in log.read_text()
    result = jobrota.ComparisonResult.load(next(tmp_path.glob("*.json")))
    errors = [error for error in column(result.jobs(), "error") if error]
    assert len(errors) == 4
    assert all("ERROR" in error and str(tmp_path) in error for error in errors)


@pytest.mark.parametrize(("long_poll", "list_filters"), [(True, True), (False, True), (False, False)])
def test_faults_lose_no_job(tmp_path: Path, long_poll: bool, list_filters: bool) -> None:
    bad = {"fault_rate": 0.05, "reset_rate": 0.02, "token_lifetime": 1, "seed": 7}
    print("seed 7")
    with sandbox(60, speed=90, long_poll=long_poll, list_filters=list_filters, **bad) as server:
        arms = [jobrota.Arm("many", FIXED, "window", 30)]
        result = runner(server, results_dir=tmp_path, arms=arms).run(progress=False)
        assert result.failed_jobs == 0
        names = column(result.jobs(), "unique_name")
        assert len(names) == 60
        submitted_once(server, names)


@pytest.mark.parametrize(
    ("orchestrator", "code"), [("missing", "orchestrator_unavailable"), ("forbidden", "orchestrator_unavailable")]
)
def test_without_an_orchestrator_nothing_is_invented(tmp_path: Path, orchestrator: Any, code: str) -> None:
    with sandbox(3, orchestrator=orchestrator) as server:
        result = runner(server, results_dir=tmp_path, correlation_timeout=1).run(progress=False)
    assert {code, "missing_correlation"} <= {warning.code for warning in result.warnings}
    jobs = result.jobs()
    assert set(column(jobs, "host")) == set(column(jobs, "pending_s")) == {None}
    assert set(column(jobs, "correlation")) == {"none"}
    assert result.failed_jobs == 0


class SlowGateway(BaseHTTPRequestHandler):
    """Answers the first submission with 504 at once, and passes it on long after that; passes on all else."""

    protocol_version = "HTTP/1.1"
    upstream: str
    late: list[threading.Timer]

    def pass_on(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        sent = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
        if self.command == "POST" and self.path == "/jobExecution/jobs" and not self.late:
            # 90 s of the server: the client looks for the job over 30.
            self.late.append(threading.Timer(0.9, self.forward, [self.command, self.path, body, sent]))
            self.late[0].start()
            self.send_response(504)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status, headers, content = self.forward(self.command, self.path, body, sent)
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in ("connection", "content-length", "transfer-encoding"):
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def forward(
        self, command: str, path: str, body: bytes, headers: dict[str, str]
    ) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.upstream, timeout=60)
        connection.request(command, path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), content

    do_GET = do_PUT = do_DELETE = do_POST = pass_on  # noqa: N815

    def log_message(self, *arguments: Any) -> None:
        """Logs nothing."""


def test_late_submission_is_warned(tmp_path: Path) -> None:
    late: list[threading.Timer] = []
    with sandbox(4, definitions=definitions(4, 300)) as server:
        members = {"upstream": server.viya_url.split("//")[1], "late": late}
        with ThreadingHTTPServer(("127.0.0.1", 0), type("Here", (SlowGateway,), members)) as gateway:
            threading.Thread(target=gateway.serve_forever, daemon=True).start()
            compared = jobrota.ViyaComparisonRunner(
                f"http://127.0.0.1:{gateway.server_port}", tokens=server.tokens, jobs=server.jobs, results_dir=tmp_path,
                time_scale=server.speed, arms=[jobrota.Arm("one", FIXED, "all"), jobrota.Arm("two", SCALING, "all")],
            )  # fmt: skip
            result = compared.run(progress=False)
            gateway.shutdown()
        counts = Counter(job["name"] for job in server.viya_jobs())
    (twice,) = [name for name, count in counts.items() if count > 1]
    (warning,) = [warning for warning in result.warnings if warning.code == "submitted_twice"]
    assert "entry: 1 (job_0" in warning.text
    assert result.to_dict()["metadata"]["submitted_twice"] == [twice]
    assert "submitted_twice" in result.to_dict()["analysis"]["verdict"]["cautions"]
    assert result.failed_jobs == 0
    # It is told of the result that is read again, and in the table of all runs.
    assert result.path is not None
    again = jobrota.ComparisonResult.load(result.path)
    assert [(warning.code, warning.text) for warning in again.warnings] == [
        (warning.code, warning.text) for warning in result.warnings
    ]
    result.append_to(tmp_path / "tables")
    history = jobrota.comparison_history(tmp_path / "tables")
    assert column(history, "warnings") == [len(result.warnings)] * 2


def test_names_that_are_not_passed_on_leave_the_time(tmp_path: Path) -> None:
    with sandbox(3, speed=20, orchestrator="unnamed") as server:
        options = {"sequential_only": True, "correlation_timeout": 1}
        result = runner(server, results_dir=tmp_path, **options).run(progress=False)
    # One after the other: each has one candidate at its time.
    assert set(column(result.jobs(), "correlation")) == {"time"}
    assert "time_correlation" in {warning.code for warning in result.warnings}


def child(server: jobrota.Sandbox, folder: Path, *journal: str, **options: Any) -> subprocess.Popen[str]:
    given = {
        "base_url": server.viya_url, "tokens": str(server.tokens), "jobs": str(server.jobs), "results_dir": str(folder),
        "time_scale": server.speed, **options,
    }  # fmt: skip
    arguments = [sys.executable, str(CHILD), json.dumps(given), *journal]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("kill_at", [1, 7, 15, 33])
def test_killed_run_resumes_without_repeats(tmp_path: Path, kill_at: int) -> None:
    options = {"mode": "window", "concurrent": 4, "arms": "three_way"}
    with sandbox(10, speed=130) as server:
        with child(server, tmp_path, **options) as killed:
            assert killed.stdout is not None
            seen = [json.loads(killed.stdout.readline()) for _ in range(kill_at)]
            killed.kill()
        done_before = {job["id"] for job in server.viya_jobs() if job["ended"] is not None}
        assert not list(tmp_path.glob("*.json"))
        (journal,) = tmp_path.glob("*.journal.jsonl")
        resumed = child(server, tmp_path, str(journal), **options)
        out, _ = resumed.communicate(timeout=100)
        assert resumed.returncode == 0
        result = jobrota.ComparisonResult.load(json.loads(out.splitlines()[-1])["path"])
        values, jobs = result.to_dict(), result.jobs()
        assert jobs.num_rows == 30
        assert set(column(jobs, "state")) == {"completed"}
        # Everything that ever reached the server is in the result, and nothing else.
        submitted_once(server, column(jobs, "unique_name"))
        assert {job["id"] for job in server.viya_jobs()} == set(column(jobs, "job_id"))
        assert done_before <= set(column(jobs, "job_id"))
        assert values["metadata"]["resumed"] == 1
        assert "resumed" in {warning.code for warning in result.warnings}
        # The round in which it was killed took no time that means something.
        interrupted = [arm["name"] for arm in values["arms"] if arm["rounds"][0]["interrupted"]]
        assert len(interrupted) <= 1
        assert seen[-1]["arm"] in {*interrupted, "sequential", "async_regular", "async_autoscaling"}
        # The table of all runs leaves the same rounds out.
        assert result.append_to(tmp_path / "tables") == 30
        history = jobrota.comparison_history(tmp_path / "tables")
        assert column(history, "arm") == column(result.arms(), "arm")
        assert column(history, "makespan_s") == column(result.arms(), "total_duration_s")
        assert column(history, "rounds") == [0 if name in interrupted else 1 for name in column(history, "arm")]
        assert column(history, "warnings") == [len(result.warnings)] * 3


def test_job_timeout_cancels_job(tmp_path: Path) -> None:
    with sandbox(4) as server:
        configs = json.loads(server.jobs.read_text())
        configs["jobs"][1]["job_timeout"] = 5
        path = tmp_path / "jobs.json"
        path.write_text(json.dumps(configs))
        result = runner(server, results_dir=tmp_path, jobs=path, async_only=True).run(progress=False)
        states = dict(zip(column(result.jobs(), "job"), column(result.jobs(), "state"), strict=True))
        assert Counter(states.values()) == {"completed": 3, "timedOut": 1}
        assert Counter(job["state"] for job in server.viya_jobs()) == {"completed": 3, "canceled": 1}
        assert result.failed_jobs == 1


def test_jobs_are_cleaned_up_when_asked(tmp_path: Path) -> None:
    with sandbox(3, speed=400) as server:
        result = runner(server, results_dir=tmp_path, cleanup=True, async_only=True).run(progress=False)
        assert result.failed_jobs == 0
        requests = server.viya_requests()
        assert requests["DELETE /jobExecution/jobs/{id}"] == 3


def test_longest_first_uses_earlier_durations(tmp_path: Path) -> None:
    with sandbox(12, speed=300, hosts={"fixed_hosts": 1, "fixed_slots": 3, "fixed_cores": 6, "pool_max": 0}) as server:
        arms = [jobrota.Arm("window", FIXED, "window", 3)]
        first = runner(server, results_dir=tmp_path, arms=arms).run(progress=False)
        for durations in (first, first.path, None, {f"job_{number:04d}": number for number in range(12)}):
            again = runner(server, results_dir=tmp_path, arms=arms, order="longest_first", durations_from=durations)
            jobs = again.run(progress=False).jobs()
            known = {name: 20.0 * (1 + int(name[4:]) % 7 / 7) for name in column(jobs, "job")}
            if isinstance(durations, dict):
                assert column(jobs, "job") == sorted(durations, key=lambda name: -durations[name])
            else:
                # The longest third is let in before the shortest third.
                order = [known[name] for name in column(jobs, "job")]
                assert min(order[:4]) >= max(order[8:])
    with pytest.raises(jobrota.InvalidInputError, match="longest_first"):
        jobrota.ViyaComparisonRunner("http://127.0.0.1:1", durations_from={"a": 1.0})


def test_correlation_asks_no_more_than_pages(tmp_path: Path) -> None:
    hosts = {
        "fixed_hosts": 40,
        "fixed_slots": 40,
        "fixed_cores": 80,
        "fixed_contention": 0,
        "pool_max": 0,
        "pod_start": 0,
    }
    with sandbox(1500, speed=100, hosts=hosts, definitions=definitions(1500, 5)) as server:
        result = runner(server, results_dir=tmp_path, arms=[jobrota.Arm("all", FIXED, "all")]).run(progress=False)
        assert set(column(result.jobs(), "correlation")) == {"exact"}
        assert server.viya_requests()["GET /workloadOrchestrator/jobs"] <= 3


def test_arms_that_begin_alike_share_no_name(tmp_path: Path) -> None:
    with sandbox(3, speed=400) as server:
        arms = [jobrota.Arm(f"autoscaling_{count}", FIXED, "window", count) for count in (5, 10)]
        result = runner(server, results_dir=tmp_path, arms=arms).run(progress=False)
        names = column(result.jobs(), "unique_name")
        assert len(set(names)) == 6
        submitted_once(server, names)


def test_resume_reads_complete_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with sandbox(3, speed=400) as server:
        run = runner(server, results_dir=tmp_path, async_only=True)
        result = run.run(progress=False)
        (journal,) = tmp_path.glob("*.journal.jsonl")
        before = sorted(tmp_path.iterdir())
        again = run.resume(journal, progress=False)
        assert (again.path, again.to_dict()) == (result.path, result.to_dict())
        assert sorted(tmp_path.iterdir()) == before
        assert not server.viya_requests().get("resumed")
        submitted_once(server, column(result.jobs(), "unique_name"))
        # The command takes a server of this machine from the journal, and nothing that contradicts it.
        cli.main(["compare", "--resume", str(journal), "--tokens", str(server.tokens)])
        assert str(result.path) in capsys.readouterr().out
        with pytest.raises(SystemExit) as ended:
            cli.main(["compare", "--resume", str(journal), "--repeat", "7", "--arms", "three_way"])
        assert ended.value.code == 2
        told = capsys.readouterr().err
        assert "--repeat" in told
        assert "--arms" in told


def test_resume_sends_no_token_to_a_server_that_only_the_journal_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with sandbox(3, speed=400) as server:
        result = runner(server, results_dir=tmp_path, async_only=True).run(progress=False)
        (journal,) = tmp_path.glob("*.journal.jsonl")
        foreign = tmp_path / "foreign.journal.jsonl"
        foreign.write_text(journal.read_text().replace(server.viya_url, "https://u:pw@viya.invalid"), encoding="utf-8")
        resume = ["compare", "--tokens", str(server.tokens), "--resume", str(foreign)]
        with pytest.raises(SystemExit):
            cli.main(resume)
        told = capsys.readouterr().err
        assert "--base-url https://viya.invalid if your tokens" in told
        assert "pw" not in told
        # The configured server wins, and the run was not on it.
        monkeypatch.setenv("JOBROTA_BASE_URL", server.viya_url)
        before = server.viya_requests()
        with pytest.raises(SystemExit):
            cli.main(resume)
        assert "viya.invalid" in capsys.readouterr().err
        assert server.viya_requests() == before
        cli.main(["compare", "--tokens", str(server.tokens), "--resume", str(journal)])
        assert str(result.path) in capsys.readouterr().out


def test_interrupted_round_stays_marked(tmp_path: Path) -> None:
    options = {"mode": "window", "concurrent": 3, "arms": "three_way"}
    with sandbox(8, speed=130) as server:
        journals: list[str] = []
        for events in (5, 14):
            with child(server, tmp_path, *journals, **options) as killed:
                assert killed.stdout is not None
                for _ in range(events):
                    assert killed.stdout.readline()
                killed.kill()
            journals = [str(path) for path in tmp_path.glob("*.journal.jsonl")]
        resumed = child(server, tmp_path, *journals, **options)
        out, _ = resumed.communicate(timeout=100)
        assert resumed.returncode == 0
        values = jobrota.ComparisonResult.load(json.loads(out.splitlines()[-1])["path"]).to_dict()
        assert values["metadata"]["resumed"] == 2
        sequential = values["arms"][0]
        # Killed after its second job, and done since.
        assert sequential["rounds"][0]["interrupted"] is True
        assert values["analysis"]["arms"][0]["rounds"] == 0
        assert len(sequential["jobs"]) == 8
        # Its time has the pauses between the runs in it.
        assert values["sequential_execution"]["total_duration"] is None
        assert values["comparison"]["time_saved"] is values["comparison"]["efficiency_gain"] is None


def test_one_job_at_a_time_in_both_known_arms(tmp_path: Path) -> None:
    with sandbox(2, speed=400) as server:
        values = runner(server, results_dir=tmp_path, mode="sequential").run(progress=False).to_dict()
    assert values["sequential_execution"]["context_name"] == FIXED
    assert values["async_execution"]["context_name"] == SCALING
    assert values["comparison"]["time_saved"] is not None
    (gain,) = values["analysis"]["comparisons"]
    assert gain["kind"] == "context"
