"""OpenTelemetry spans of deliveries and comparisons, made afterwards of the times in tables and results.

They go to the tracer provider of the program, and the active span of the program is their parent. Without a provider,
or without the package opentelemetry-api, nothing is made or read. What cannot be recorded is logged: spans are never
in the way.
"""

from __future__ import annotations

import logging
import os
import sys
import urllib.parse
from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta, timezone
from types import TracebackType
from typing import TYPE_CHECKING, Any

from jobrota._native import __version__, shown_url
from jobrota.scrub import scrub

if TYPE_CHECKING:
    from jobrota._native import ComparisonResult, DeliveryReport, JobLedger

__all__ = ["DeliverySpans", "record_comparison"]

_EPOCH = datetime.fromtimestamp(0, timezone.utc)
_COUNTS = (
    "delivered", "failed", "unknown", "parked", "superseded", "expired", "recovered", "waiting", "held_back", "pending",
)  # fmt: skip
_log = logging.getLogger("jobrota.tracing")


class DeliverySpans:
    """Records a span `deliver` for each delivery cycle, and below it a span `send` for each event.

    A `send` begins when its row is marked in `autosys_deliveries` and ends with its outcome.

    Example:
        >>> import tempfile
        >>> from jobrota import AutosysUpdater, JobLedger
        >>> ledger = JobLedger(tempfile.mkdtemp())
        >>> ledger.log_job_completion("ae.sas", "PROD.AE", "SUCCESS")
        >>> with DeliverySpans(ledger) as spans:
        ...     spans.cycle(AutosysUpdater(ledger, lambda *row: True).run())
    """

    def __init__(self, ledger: JobLedger, table: str = "job_notifications") -> None:
        """Takes what the updater has: its ledger, and its `source`."""
        self._ledger = ledger
        self._table = table
        self._recorder: _Recorder | None = None
        # Of the cycle that runs; None after a report, because the next cycle begins later.
        self._began: datetime | None = None
        self._since = _now()

    def __enter__(self) -> DeliverySpans:
        """Begins the first cycle. The span that is active now is the parent of all."""
        self._recorder = _Recorder.of_the_program()
        self._began = self._since = _now()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Records the cycle that the error ended, if any."""
        if error is not None:
            self.error(error)

    async def __aenter__(self) -> DeliverySpans:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Like the end of `with`, without blocking the event loop."""
        if error is not None and self._recorder is not None:
            import asyncio

            await asyncio.to_thread(self.error, error)

    def cycle(self, report: DeliveryReport) -> None:
        """Records the cycle that has ended: pass it to `run_forever(on_report=…)`, or call it after `run`."""
        if self._recorder is None:
            return
        counts = {f"jobrota.delivery.{name}": getattr(report, name) for name in _COUNTS}
        flags = {f"jobrota.delivery.{name}": getattr(report, name) for name in ("dry_run", "stopped", "lease_held_by")}
        self._record(self._recorder, counts | flags, None, sent=not report.dry_run and report.lease_held_by is None)

    def error(self, error: BaseException) -> None:
        """Records the cycle that the error ended."""
        if self._recorder is not None:
            self._record(self._recorder, {}, error, sent=True)

    def _record(
        self, recorder: _Recorder, attributes: dict[str, Any], error: BaseException | None, *, sent: bool
    ) -> None:
        ended = _now()
        sends: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
        try:
            if sent:
                sends = list(_sends(self._ledger.deliveries(since=self._since).to_pylist(), self._table))
        except Exception as failure:
            # What ended the cycle is often what keeps its attempts from being read.
            level = logging.WARNING if error is None else logging.DEBUG
            _log.log(level, "the spans of the sends could not be made: %s", scrub(str(failure)))
        try:
            began = self._began or min((mark["attempted_at"] for mark, _ in sends), default=ended)
            attributes["jobrota.ledger.root"] = scrub(shown_url(self._ledger.root))
            attributes["jobrota.ledger.table"] = self._table
            cycle = recorder.span("deliver", None, (began, ended), attributes, _kind(error), str(error or ""))
            for mark, outcome in sends:
                self._send(recorder, cycle, mark, outcome, ended)
        except Exception as failure:  # spans are never in the way
            _log.warning("the spans of a delivery cycle could not be made: %s", scrub(str(failure)))
        self._began, self._since = None, ended

    def _send(
        self, recorder: _Recorder, cycle: Any, mark: dict[str, Any], outcome: dict[str, Any] | None, ended: datetime
    ) -> None:
        word = outcome["outcome"] if outcome else "in_doubt"
        attributes = {
            "jobrota.job.id": mark["job_id"],
            "jobrota.job.file_name": mark["file_name"],
            "jobrota.job.status": mark["status"],
            "jobrota.attempt.number": mark["attempt"],
            "jobrota.attempt.outcome": word,
            "jobrota.transport.name": mark["transport"],
            "server.address": outcome and outcome["vm"],
        }
        times = (mark["attempted_at"], outcome["attempted_at"] if outcome else ended)
        reason = None if word == "delivered" else word
        recorder.span("send", cycle, times, attributes, reason, (outcome or {}).get("detail"), sends=True)


def record_comparison(result: ComparisonResult) -> None:
    """Records a comparison: a span `compare`, below it `arm` for each round of an arm, and `job` for each job.

    Below a job are `pending`, `starting` and `running`, with the times of the Workload Orchestrator. A result without
    points in time, such as one of `ComparisonResult.from_table`, has no spans.

    Args:
        result: What `ViyaComparisonRunner.run` returned, or a result that was loaded.
    """
    recorder = _Recorder.of_the_program()
    if recorder is None:
        return
    try:
        _comparison(recorder, result.to_dict(), result.failed_jobs)
    except Exception as failure:  # spans are never in the way
        _log.warning("the spans of a comparison could not be made: %s", scrub(str(failure)))


class _Recorder:
    """Makes spans that have ended."""

    def __init__(self, trace: Any, tracer: Any) -> None:
        from opentelemetry import context

        self._trace = trace
        self._tracer = tracer
        self._context = context.get_current()

    @classmethod
    def of_the_program(cls) -> _Recorder | None:
        """Returns the recorder for the tracer provider that the program has set, or None if it has set none."""
        # Who sets a provider has imported this module.
        trace = sys.modules.get("opentelemetry.trace")
        if trace is None:
            return None
        try:
            if isinstance(trace.get_tracer_provider(), (trace.ProxyTracerProvider, trace.NoOpTracerProvider)):
                return None
            return cls(trace, trace.get_tracer("jobrota", __version__))
        except Exception as failure:  # spans are never in the way
            _log.warning("spans cannot be made: %s", scrub(str(failure)))
            return None

    def span(
        self,
        name: str,
        parent: Any,
        times: tuple[datetime, datetime],
        attributes: Mapping[str, Any],
        error: str | None = None,
        detail: str | None = None,
        *,
        sends: bool = False,
    ) -> Any:
        """Makes a span below `parent`, else below the span that is active in the program.

        Args:
            name: The name of the operation.
            parent: A span that this recorder made, or None.
            times: The begin and the end.
            attributes: Those that are None are left out.
            error: What kind of error ended it, if one did.
            detail: What the error says. Secrets are removed.
            sends: Whether it calls another system.
        """
        kinds = self._trace.SpanKind
        given = {key: value for key, value in attributes.items() if value is not None}
        span = self._tracer.start_span(
            name,
            context=self._context if parent is None else self._trace.set_span_in_context(parent, self._context),
            kind=kinds.CLIENT if sends else kinds.INTERNAL,
            start_time=_nanoseconds(times[0]),
            attributes=given if error is None else given | {"error.type": error},
        )
        if error is not None:
            span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, scrub(detail or error)))
        # A clock that was set back must not end a span before it begins.
        span.end(end_time=_nanoseconds(max(times)))
        return span


def _sends(attempts: list[dict[str, Any]], table: str) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    """Yields the mark of each event that this process sent, with its outcome, or None if it has none."""
    marks: dict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
    ours = f":{os.getpid()}"
    for attempt in sorted(attempts, key=lambda attempt: attempt["attempted_at"]):
        if attempt["table_name"] != table or not attempt["delivered_by"].endswith(ours):
            continue
        key = tuple(attempt[name] for name in ("file_name", "job_id", "status", "row_timestamp", "attempt"))
        if attempt["outcome"] == "sending":
            marks[key].append(attempt)
        elif marks[key]:
            mark = marks[key].pop(0)
            if not (attempt["detail"] or "").startswith("not sent: "):  # the delivery was stopped before its turn
                yield mark, attempt
    for left in marks.values():
        yield from ((mark, None) for mark in left)


def _comparison(recorder: _Recorder, values: Mapping[str, Any], failed_jobs: int) -> None:
    metadata, arms = values["metadata"], values["arms"]
    rounds = [(arm, part) for arm in arms for part in arm["rounds"] if part["start_time"] and part["end_time"]]
    if not rounds:
        _log.info("a comparison without points in time has no spans")
        return
    # Times of jobs are seconds since a moment that only the rounds name.
    first = rounds[0][1]
    zero = datetime.fromisoformat(first["start_time"].replace("Z", "+00:00")) - timedelta(seconds=first["start_s"])

    def at(seconds: float) -> datetime:
        return zero + timedelta(seconds=seconds)

    whole = (at(min(part["start_s"] for _, part in rounds)), at(max(part["end_s"] for _, part in rounds)))
    attributes = {
        "jobrota.comparison.run_id": metadata["run_id"],
        "jobrota.comparison.failed_jobs": failed_jobs,
        "server.address": urllib.parse.urlsplit(metadata["base_url"] or "").hostname,
    }
    run = recorder.span("compare", None, whole, attributes, metadata.get("broke_off") and "broke_off")
    for arm, part in rounds:
        common = {
            "jobrota.comparison.arm": arm["name"],
            "jobrota.comparison.round": part["round"],
            "jobrota.comparison.context": arm["context"],
            "jobrota.comparison.mode": arm["mode"],
        }
        above = recorder.span("arm", run, (at(part["start_s"]), at(part["end_s"])), common)
        for job in arm["jobs"]:
            if job["round"] == part["round"] and job["jes_created_s"] is not None and job["jes_end_s"] is not None:
                _job(recorder, above, job, at, common)


def _job(recorder: _Recorder, parent: Any, job: Mapping[str, Any], at: Any, common: dict[str, Any]) -> None:
    attributes = common | {
        "jobrota.job.name": job["job"],
        "jobrota.job.state": job["state"],
        "jobrota.job.host": job["host"],
        "jobrota.job.queue": job["queue"],
        "jobrota.job.correlation": job["correlation"],
    }
    error = None if job["state"] == "completed" else job["state"]
    span = recorder.span(
        "job", parent, (at(job["jes_created_s"]), at(job["jes_end_s"])), attributes, error, job["error"]
    )
    if job["wlo_submit_s"] is None or job["wlo_start_s"] is None:
        return
    begin = job["wlo_submit_s"]
    for phase, start in (("pending", begin), ("starting", job["wlo_start_s"]), ("running", None)):
        begin = begin if start is None else start
        if (seconds := job[f"{phase}_s"]) is None:
            return
        recorder.span(phase, span, (at(begin), at(begin + seconds)), {"jobrota.job.name": job["job"]})
        begin += seconds


def _kind(error: BaseException | None) -> str | None:
    return None if error is None else type(error).__qualname__


def _now() -> datetime:
    return datetime.now(timezone.utc)


def _nanoseconds(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1) * 1000
