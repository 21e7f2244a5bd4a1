"""OpenTelemetry spans of deliveries and comparisons: their times, parents and attributes."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv.attributes import error_attributes, server_attributes

import jobrota
from jobrota.tracing import DeliverySpans, record_comparison
from reported_runs import recorded
from support import run, runner

EPOCH = datetime.fromtimestamp(0, timezone.utc)
COMMON = {error_attributes.ERROR_TYPE, server_attributes.SERVER_ADDRESS}


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    """The spans of a program that has set a tracer provider."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    # set_tracer_provider works once in a process.
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", provider)
    yield exporter
    for span in exporter.get_finished_spans():
        for name in span.attributes or {}:
            assert name in COMMON or re.fullmatch(r"jobrota(\.[a-z]+(_[a-z]+)*){2}", name), name
    provider.shutdown()


def named(exporter: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The spans of this name, in order of their begin."""
    spans = [span for span in exporter.get_finished_spans() if span.name == name]
    return sorted(spans, key=lambda span: span.start_time or 0)


def moment(nanoseconds: int | None) -> datetime:
    assert nanoseconds is not None
    return EPOCH + timedelta(microseconds=nanoseconds // 1000)


def times(span: ReadableSpan) -> tuple[datetime, datetime]:
    return moment(span.start_time), moment(span.end_time)


def parent_of(span: ReadableSpan) -> int | None:
    return span.parent.span_id if span.parent else None


def id_of(span: Any) -> int:
    return int(span.get_span_context().span_id)


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


def log(ledger: jobrota.JobLedger, *jobs: str) -> None:
    for job in jobs:
        ledger.log_job_completion(f"{job}.sas", job, "SUCCESS")


def test_a_cycle_and_its_sends_have_the_times_of_the_attempts(
    exporter: InMemorySpanExporter, ledger: jobrota.JobLedger
) -> None:
    log(ledger, "GOOD", "BAD")
    updater = jobrota.AutosysUpdater(ledger, lambda file_name, job_id, status: job_id == "GOOD")
    with trace.get_tracer("test").start_as_current_span("caller") as caller, DeliverySpans(ledger) as spans:
        before = datetime.now(timezone.utc)
        spans.cycle(updater.run())
    (cycle,) = named(exporter, "deliver")
    assert parent_of(cycle) == id_of(caller)
    assert attributes(cycle) == {
        "jobrota.ledger.root": ledger.root,
        "jobrota.ledger.table": "job_notifications",
        "jobrota.delivery.delivered": 1,
        "jobrota.delivery.failed": 1,
        "jobrota.delivery.pending": 1,
        "jobrota.delivery.dry_run": False,
        "jobrota.delivery.stopped": False,
        **{
            f"jobrota.delivery.{name}": 0
            for name in ("unknown", "parked", "superseded", "expired", "recovered", "waiting", "held_back")
        },
    }
    assert cycle.status.status_code is trace.StatusCode.UNSET
    attempts = {(row.job_id, row.outcome): row.attempted_at for row in ledger.deliveries()}
    sends = {attributes(span)["jobrota.job.id"]: span for span in named(exporter, "send")}
    assert sends.keys() == {"GOOD", "BAD"}
    for job, outcome in (("GOOD", "delivered"), ("BAD", "failed")):
        span = sends[job]
        assert parent_of(span) == id_of(cycle)
        assert span.kind is trace.SpanKind.CLIENT
        assert times(span) == (attempts[job, "sending"], attempts[job, outcome])
        assert before < times(cycle)[0] + timedelta(seconds=1)
        assert times(cycle)[0] <= times(span)[0] <= times(span)[1] <= times(cycle)[1]
    assert attributes(sends["BAD"]) == {
        "jobrota.job.id": "BAD",
        "jobrota.job.file_name": "BAD.sas",
        "jobrota.job.status": "SUCCESS",
        "jobrota.attempt.number": 1,
        "jobrota.attempt.outcome": "failed",
        "jobrota.transport.name": "callable",
        "error.type": "failed",
    }
    assert sends["BAD"].status.status_code is trace.StatusCode.ERROR
    assert sends["BAD"].status.description == "refused: the callable returned False"
    assert "error.type" not in attributes(sends["GOOD"])


def test_each_cycle_of_run_forever_has_its_own_sends(exporter: InMemorySpanExporter, ledger: jobrota.JobLedger) -> None:
    log(ledger, "A")
    reports: list[jobrota.DeliveryReport] = []

    def on_report(report: jobrota.DeliveryReport) -> None:
        spans.cycle(report)
        reports.append(report)
        if len(reports) == 2:
            raise EOFError
        log(ledger, "B")

    with (
        pytest.raises(EOFError),
        trace.get_tracer("test").start_as_current_span("caller") as caller,
        DeliverySpans(ledger) as spans,
    ):
        jobrota.AutosysUpdater(ledger, lambda *row: True).run_forever(0.01, on_report=on_report)
    first, second, ended = named(exporter, "deliver")
    assert [parent_of(cycle) for cycle in (first, second, ended)] == [id_of(caller)] * 3
    sends = [(attributes(span)["jobrota.job.id"], parent_of(span)) for span in named(exporter, "send")]
    assert sends == [("A", id_of(first)), ("B", id_of(second))]
    assert times(second)[0] > times(first)[1]
    assert attributes(ended)["error.type"] == "EOFError"


def test_identical_rows_have_a_span_each(exporter: InMemorySpanExporter, ledger: jobrota.JobLedger) -> None:
    log(ledger, "A")
    ledger.log_notifications(ledger.notifications())
    with DeliverySpans(ledger) as spans:
        spans.cycle(jobrota.AutosysUpdater(ledger, lambda *row: True, order="none").run())
    assert len(named(exporter, "send")) == 2


def test_a_cycle_that_fails_has_the_error_without_its_secrets(
    exporter: InMemorySpanExporter, ledger: jobrota.JobLedger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEAM_PASSWORD", "open-sesame-17")

    def send(file_name: str, job_id: str, status: str) -> bool:
        raise OSError("the password open-sesame-17 with token=0123456789 was refused")

    with pytest.raises(jobrota.NotFoundError), DeliverySpans(ledger):
        jobrota.AutosysUpdater(ledger, send).run()
    (cycle,) = named(exporter, "deliver")
    assert attributes(cycle)["error.type"] == "NotFoundError"
    assert "there is no ledger" in str(cycle.status.description)
    log(ledger, "A")
    with DeliverySpans(ledger) as spans:
        spans.cycle(jobrota.AutosysUpdater(ledger, send).run())
    (sent,) = named(exporter, "send")
    assert sent.status.description == "OSError: the password … with token=… was refused"
    assert "sesame" not in str([span.to_json() for span in exporter.get_finished_spans()])


def test_a_dry_run_and_a_held_lease_send_nothing(exporter: InMemorySpanExporter, ledger: jobrota.JobLedger) -> None:
    log(ledger, "A")
    with DeliverySpans(ledger) as spans:
        spans.cycle(jobrota.AutosysUpdater(ledger, lambda *row: True, dry_run=True).run())
    (cycle,) = named(exporter, "deliver")
    assert attributes(cycle)["jobrota.delivery.dry_run"] is True
    assert named(exporter, "send") == []


def test_the_notebook_functions_record(exporter: InMemorySpanExporter, ledger: jobrota.JobLedger) -> None:
    jobrota.configure(ledger=ledger)
    log(ledger, "A")
    jobrota.autosys_update_runner(lambda *row: True)
    log(ledger, "B")

    async def work() -> int:
        with trace.get_tracer("test").start_as_current_span("caller") as caller:
            await jobrota.autosys_update_runner_async(lambda *row: True)
        return id_of(caller)

    caller = asyncio.run(work())
    first, second = named(exporter, "deliver")
    assert (parent_of(first), parent_of(second)) == (None, caller)
    assert [parent_of(span) for span in named(exporter, "send")] == [id_of(first), id_of(second)]


def test_the_commands_record(
    exporter: InMemorySpanExporter, ledger: jobrota.JobLedger, sandbox: jobrota.Sandbox, tmp_path: Path
) -> None:
    log(ledger, "A")
    assert run("autosys", "deliver", "--ledger", ledger.root, "--sendevent", sandbox.sendevent) == 0
    (sent,) = named(exporter, "send")
    assert attributes(sent)["jobrota.transport.name"] == "sendevent"
    server = ("--base-url", sandbox.viya_url, "--tokens", sandbox.tokens)
    jobs = ("--jobs", sandbox.jobs, "--limit-jobs", 1, "--results-dir", tmp_path)
    assert run("compare", *server, *jobs, "--time-scale", sandbox.speed) == 0
    assert len(named(exporter, "job")) == 2


def test_spans_are_never_in_the_way(
    exporter: InMemorySpanExporter, ledger: jobrota.JobLedger, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken:
        root = "memory"

        def deliveries(self, since: datetime) -> None:
            raise jobrota.StorageError("the store is away")

    log(ledger, "A")
    with DeliverySpans(Broken()) as spans:  # type: ignore[arg-type]
        spans.cycle(jobrota.AutosysUpdater(ledger, lambda *row: True).run())
    assert [span.name for span in exporter.get_finished_spans()] == ["deliver"]
    assert "the sends could not be made: the store is away" in caplog.text
    with DeliverySpans(None) as spans:  # type: ignore[arg-type]
        spans.cycle(jobrota.AutosysUpdater(ledger, lambda *row: True).run())
    assert "a delivery cycle could not be made" in caplog.text


NOTHING = """
import sys, tempfile
sys.modules |= {missing}
import jobrota
from jobrota.tracing import DeliverySpans, record_comparison
class Ledger:
    pass
with DeliverySpans(Ledger()) as spans:
    spans.cycle(None)
record_comparison(None)
jobrota.configure(ledger=tempfile.mkdtemp())
jobrota.log_job_completion("a.sas", "A", "SUCCESS")
print(jobrota.autosys_update_runner(lambda *row: True).delivered)
print([name for name in sys.modules if name.startswith("opentelemetry") and sys.modules[name]])
"""


def test_without_the_package_or_its_use_nothing_is_read() -> None:
    for missing in ({}, {"opentelemetry": None}):
        code = NOTHING.format(missing=missing)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
        assert done.stdout == "1\n[]\n", done.stderr
    code = "from opentelemetry import trace\n" + NOTHING.format(missing={})
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.startswith("1\n"), done.stderr
    assert done.stderr == ""


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> jobrota.ComparisonResult:
    with jobrota.Sandbox(autosys=False, vms=0, vms_down=0, speed=400, fail_jobs=["dm_pooled"]) as sandbox:
        folder = tmp_path_factory.mktemp("run")
        return runner(sandbox, limit_jobs=3, mode="all", repeat=2, results_dir=folder).run(progress=False)


def test_a_comparison_has_the_times_of_the_orchestrator(
    exporter: InMemorySpanExporter, result: jobrota.ComparisonResult
) -> None:
    with trace.get_tracer("test").start_as_current_span("caller") as caller:
        record_comparison(result)
    (whole,) = named(exporter, "compare")
    assert parent_of(whole) == id_of(caller)
    values = result.to_dict()
    assert attributes(whole) == {
        "jobrota.comparison.run_id": values["metadata"]["run_id"],
        "jobrota.comparison.failed_jobs": result.failed_jobs,
        "server.address": "127.0.0.1",
    }
    arms = named(exporter, "arm")
    assert len(arms) == 4
    assert {parent_of(arm) for arm in arms} == {id_of(whole)}
    jobs = named(exporter, "job")
    rows = sorted(result.jobs().to_pylist(), key=lambda row: row["jes_created_s"])
    assert len(jobs) == len(rows) == 12
    by_id = {id_of(span): span for span in exporter.get_finished_spans()}
    # The same moments as in the result's own lists, which have them as text.
    started = {
        job["unique_job_name"]: [job[name] for name in ("start_time", "end_time")]
        for key in ("sequential_execution", "async_execution")
        for job in values[key]["jobs"]
    }
    orchestrated = {
        job["unique_job_name"]: job["metrics"]["orchestrator_data"]["submit_time"]
        for key in ("sequential_execution", "async_execution")
        for job in values[key]["jobs"]
    }
    assert len(started) == 12
    for span, row in zip(jobs, rows, strict=True):
        facts = attributes(span)
        assert (facts["jobrota.job.name"], facts["jobrota.job.host"]) == (row["job"], row["host"])
        above = attributes(by_id[parent_of(span) or 0])
        assert (above["jobrota.comparison.arm"], above["jobrota.comparison.round"]) == (row["arm"], row["round"])
        assert [_shown(at) for at in times(span)] == started[row["unique_name"]]
        below = {child.name: child for child in by_id.values() if parent_of(child) == id_of(span)}
        assert below.keys() == {"pending", "starting", "running"}
        assert _shown(times(below["pending"])[0]) == orchestrated[row["unique_name"]].replace("Z", ".000Z")
        for phase, child in below.items():
            begin, end = times(child)
            assert abs((end - begin).total_seconds() - row[f"{phase}_s"]) < 1e-3
        assert times(below["starting"])[1] == times(below["running"])[0]
    failed = [span for span in jobs if span.status.status_code is trace.StatusCode.ERROR]
    assert len(failed) == result.failed_jobs
    assert {attributes(span)["error.type"] for span in failed} <= {"failed", "canceled", "timedOut"}


def _shown(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def test_a_result_without_points_in_time_has_no_spans(exporter: InMemorySpanExporter) -> None:
    record_comparison(jobrota.ComparisonResult.from_table(recorded()))
    assert exporter.get_finished_spans() == ()


def test_a_loaded_result_has_the_same_spans(exporter: InMemorySpanExporter, result: jobrota.ComparisonResult) -> None:
    def spans() -> Sequence[Any]:
        found = [(span.name, *times(span), attributes(span)) for span in exporter.get_finished_spans()]
        exporter.clear()
        return found

    record_comparison(result)
    made = spans()
    assert result.path is not None
    record_comparison(jobrota.ComparisonResult.load(result.path))
    assert spans() == made
